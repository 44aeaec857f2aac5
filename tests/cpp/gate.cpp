// Runs a test program only where the processor has its instruction set. Built for the baseline, so
// that asking is possible everywhere: the program itself may not even reach its main.
#include <unistd.h>

#include <cstring>

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

int main(int count, char** words) {
  constexpr int kSkipped = 77, kUsage = 2;
  if (count != 3) return kUsage;
  if (!processor_has(words[1])) return kSkipped;
  execv(words[2], words + 2);
  return kUsage;
}
