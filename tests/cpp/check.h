// A small test runner: CASE(name) { ... } registers a case, expect_* records failures, main.cpp runs cases by
// name.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace check {

struct Case {
  std::string name;
  void (*run)();
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
  Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

inline void expect_close(const std::string& what, double got, double want, double tolerance) {
  if (std::fabs(got - want) <= tolerance || (std::isnan(got) && std::isnan(want))) return;
  if (failures()++ < 5)
    std::fprintf(stderr, "  %s: got %.9g, expected %.9g within %.3g\n", what.c_str(), got, want, tolerance);
}

inline std::vector<double> random_values(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(n);
  for (double& value : values) value = normal(generator);
  return values;
}

}  // namespace check

#define CASE(name)                                            \
  static void name();                                         \
  static const check::Register register_##name(#name, &name); \
  static void name()
