// The few words that the C++ tests need: a failed check is printed and counted, and the test goes
// on.
#pragma once

#include <cmath>
#include <cstdio>

inline int failures = 0;

inline void check(bool holds, const char* what, const char* file, int line) {
  if (holds) return;
  ++failures;
  std::printf("%s:%d: %s does not hold\n", file, line, what);
}

inline void check_near(double actual, double expected, double tolerance, const char* what,
                       const char* file, int line) {
  if (std::abs(actual - expected) <= tolerance) return;
  ++failures;
  std::printf("%s:%d: %s = %.17g, expected %.17g\n", file, line, what, actual, expected);
}

#define CHECK(condition) check(condition, #condition, __FILE__, __LINE__)
#define CHECK_NEAR(actual, expected, tolerance) \
  check_near(actual, expected, tolerance, #actual, __FILE__, __LINE__)

// df/dx by central differences; good to about 1e-9 for f and x of the order of 1.
template <class F>
double derivative(const F& f, double x) {
  const double h = 1e-5;
  return (f(x + h) - f(x - h)) / (2 * h);
}

// The end of a test's main.
inline int finish() {
  std::printf("%s\n", failures ? "FAILED" : "all hold");
  return failures != 0;
}
