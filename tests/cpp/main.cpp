#include <cstring>

#include "check.hpp"

namespace {

bool processor_has(const char* level) {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (std::strcmp(level, "v4") == 0) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  }
  if (std::strcmp(level, "v3") == 0) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
#else
  (void)level;
#endif
  return true;
}

}  // namespace

int main() {
  constexpr int kSkipped = 77;
  if (!processor_has(RELUFLOW_LEVEL)) return kSkipped;
  int failed = 0;
  for (const check::Case& test : check::cases()) {
    const int before = check::failures();
    test.body();
    failed += check::failures() > before;
  }
  const int total = static_cast<int>(check::cases().size());
  std::printf("core tests (%s)\n%d passed, %d failed\n", RELUFLOW_LEVEL, total - failed, failed);
  return failed == 0 ? 0 : 1;
}
