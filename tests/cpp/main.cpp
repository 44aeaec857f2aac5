#include "check.hpp"

int main() {
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
