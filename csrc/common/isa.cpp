#include "common/isa.h"

#include <cstdlib>
#include <stdexcept>

namespace pynas {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "generic";
  }
}

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // x86-64-v4 and x86-64-v3 as the compilers define them, by the features our code is built with.
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
#if !defined(PYNAS_WITHOUT_AVX512)
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (v4) return Isa::kAvx512;
#endif
  if (v3) return Isa::kAvx2;
#endif
  return Isa::kGeneric;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (int i = 0; i <= static_cast<int>(best_isa()); ++i) isas.push_back(static_cast<Isa>(i));
  return isas;
}

static Isa choose_isa() {
  const Isa best = best_isa();
  const char* wanted = std::getenv("PYNAS_ISA");
  if (wanted == nullptr || *wanted == '\0') return best;
  std::string choices;
  for (Isa isa : available_isas()) {
    if (std::string(isa_name(isa)) == wanted) return isa;
    choices += choices.empty() ? "" : ", ";
    choices += isa_name(isa);
  }
  throw std::runtime_error("PYNAS_ISA: expected one of " + choices + " on this processor, got '" + wanted +
                           "'");
}

Isa active_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

}  // namespace pynas
