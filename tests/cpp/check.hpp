#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

namespace check {

struct Case {
  std::string name;
  std::function<void()> body;
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Register {
  Register(const char* name, std::function<void()> body) { cases().push_back({name, body}); }
};

inline void that(bool holds, const char* expression, const char* file, int line) {
  if (holds) return;
  ++failures();
  std::printf("%s:%d: failed: %s\n", file, line, expression);
}

}  // namespace check

#define TEST_CASE(name)                                      \
  static void name();                                        \
  static const check::Register register_##name(#name, name); \
  static void name()

#define CHECK(expression) check::that((expression), #expression, __FILE__, __LINE__)
