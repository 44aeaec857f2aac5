# Which instruction sets are built, and the flags of each. At import the best one that the
# processor has is chosen.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(default_levels v2 v3 v4)
else()
  set(default_levels generic)
endif()
set(RELUFLOW_LEVELS "${default_levels}" CACHE STRING "Instruction sets to build")
set(RELUFLOW_FLAGS_generic "")
set(RELUFLOW_FLAGS_v2 -march=x86-64-v2)
set(RELUFLOW_FLAGS_v3 -march=x86-64-v3)
# GCC warns about its own AVX-512 headers (GCC bug 105593).
set(RELUFLOW_FLAGS_v4 -march=x86-64-v4 -Wno-maybe-uninitialized -Wno-uninitialized)
foreach(level IN LISTS RELUFLOW_LEVELS)
  if(NOT DEFINED RELUFLOW_FLAGS_${level})
    message(FATAL_ERROR "RELUFLOW_LEVELS: unknown instruction set '${level}'; known: v2 v3 v4 generic")
  endif()
endforeach()
message(STATUS "reluflow: instruction sets ${RELUFLOW_LEVELS}")
