#include <string>

#include "arrays.hpp"
#include "reluflow/parallel.hpp"

namespace reluflow::bindings {
namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

std::string eigen_version() {
  return std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
         std::to_string(EIGEN_MINOR_VERSION);
}

py::dict build_info() {
  py::dict info;
  info["instruction_set"] = RELUFLOW_LEVEL;
  info["compiler"] = compiler();
  info["eigen"] = eigen_version();
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  return info;
}

/// Instruction sets of this processor, as the operating system lets them be used.
std::vector<std::string> processor_levels() {
  std::vector<std::string> levels;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  __builtin_cpu_init();
  if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt")) {
    levels.push_back("v2");
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) {
    levels.push_back("v3");
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    levels.push_back("v4");
  }
#else
  levels.push_back("generic");
#endif
  return levels;
}

}  // namespace

void bind_build(py::module_& module) {
  module.def("build_info", &build_info);
  module.def("processor_levels", [] {
    py::list levels;
    for (const std::string& level : processor_levels()) levels.append(level);
    return levels;
  });
}

}  // namespace reluflow::bindings
