// Integer arithmetic for host and device code. Always inlined: an inline function compiled for one instruction
// set and shared by the linker would crash on processors without it, and std::min is such a function.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PYNAS_ARITHMETIC __host__ __device__ __forceinline__ constexpr
#else
#define PYNAS_ARITHMETIC __attribute__((always_inline)) constexpr
#endif

namespace pynas {

PYNAS_ARITHMETIC int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
PYNAS_ARITHMETIC int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// a / b rounded up, for a >= 0 and b > 0.
template <class A, class B>
PYNAS_ARITHMETIC auto ceil_div(A a, B b) {
  return (a + b - 1) / b;
}

}  // namespace pynas
