// Instruction sets that CPU kernels are compiled for, and the choice made at load.
//
// A kernel file is compiled once per instruction set with PYNAS_ISA_NS naming the namespace its code lives
// in. A header declares the entry in all of them with PYNAS_DECLARE_PER_ISA, a binding calls the best one
// through PYNAS_DISPATCH_ISA. Kernel files keep every template of their own inside the ISA namespace: an
// inline function compiled for AVX-512 that the linker shared with the generic build would crash on a
// processor without it.
#pragma once

#include <string>
#include <vector>

namespace pynas {

enum class Isa : int { kGeneric = 0, kAvx2 = 1, kAvx512 = 2 };

// The instruction set in use: the best one that this processor has and this build has kernels for, or the
// lower one that PYNAS_ISA names. Throws std::runtime_error when PYNAS_ISA is unknown or above that.
Isa active_isa();
Isa best_isa();
const char* isa_name(Isa isa);
std::vector<Isa> available_isas();

}  // namespace pynas

#if defined(__x86_64__)
#define PYNAS_DECLARE_PER_ISA(declaration) \
  namespace generic {                      \
  declaration;                             \
  }                                        \
  namespace avx2 {                         \
  declaration;                             \
  }                                        \
  namespace avx512 {                       \
  declaration;                             \
  }
#if defined(PYNAS_WITHOUT_AVX512)
#define PYNAS_CASE_AVX512(function, ...)
#else
#define PYNAS_CASE_AVX512(function, ...)         \
  case ::pynas::Isa::kAvx512:                    \
    ::pynas::cpu::avx512::function(__VA_ARGS__); \
    break;
#endif
#define PYNAS_DISPATCH_ISA(function, ...)           \
  switch (::pynas::active_isa()) {                  \
    PYNAS_CASE_AVX512(function, __VA_ARGS__)        \
    case ::pynas::Isa::kAvx2:                       \
      ::pynas::cpu::avx2::function(__VA_ARGS__);    \
      break;                                        \
    default:                                        \
      ::pynas::cpu::generic::function(__VA_ARGS__); \
  }
#else
#define PYNAS_DECLARE_PER_ISA(declaration) \
  namespace generic {                      \
  declaration;                             \
  }
#define PYNAS_DISPATCH_ISA(function, ...) ::pynas::cpu::generic::function(__VA_ARGS__)
#endif
