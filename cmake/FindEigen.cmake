# Eigen 3.4 from the build requirement cmeel-eigen, which installs its CMake package under
# cmeel.prefix in site-packages; a system Eigen is the fallback.
set(cmeel_prefixes "")
foreach(prefix IN LISTS CMAKE_PREFIX_PATH)
  list(APPEND cmeel_prefixes "${prefix}/cmeel.prefix")
endforeach()
find_package(Eigen3 3.4 QUIET CONFIG PATHS ${cmeel_prefixes} NO_DEFAULT_PATH)
if(Eigen3_FOUND)
  message(STATUS "reluflow: Eigen ${Eigen3_VERSION} from cmeel-eigen (${Eigen3_DIR})")
else()
  find_package(Eigen3 3.4 REQUIRED CONFIG)
  message(STATUS "reluflow: Eigen ${Eigen3_VERSION} from the system (${Eigen3_DIR})")
endif()
