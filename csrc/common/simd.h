// Width-generic vectors for CPU kernels: the compilers' vector extensions, one source for every instruction
// set. Include only from files compiled per ISA; everything lives in the namespace of that ISA.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/dtype.h"
#include "common/math.h"

#ifndef PYNAS_ISA_NS
#error "common/simd.h is for files that CMake compiles once per instruction set (pynas_isa_sources)"
#endif

#define PYNAS_INLINE __attribute__((always_inline)) inline
#define PYNAS_UNROLL _Pragma("GCC unroll 32")

namespace pynas::cpu::PYNAS_ISA_NS {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
PYNAS_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
PYNAS_INLINE void store(T* p, Vec<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class T>
PYNAS_INLINE Vec<T> zero() {
  return Vec<T>{};
}
template <class T>
PYNAS_INLINE Vec<T> broadcast(T value) {
  return value - Vec<T>{};  // x - 0 is x also for x = -0, so no add is left; 0 + x would need one
}
// The first n lanes from memory, zeros behind them.
template <class T>
PYNAS_INLINE Vec<T> load_partial(const T* p, int n) {
  Vec<T> v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
template <class T>
PYNAS_INLINE void store_partial(T* p, Vec<T> v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}

PYNAS_INLINE Vec<float> abs(Vec<float> v) {
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
  return reinterpret_cast<Vec<float>>(reinterpret_cast<Bits>(v) & 0x7fffffffu);
}
PYNAS_INLINE Vec<double> abs(Vec<double> v) {
  typedef uint64_t Bits __attribute__((vector_size(kVectorBytes)));
  return reinterpret_cast<Vec<double>>(reinterpret_cast<Bits>(v) & 0x7fffffffffffffffull);
}

// sign(v): -1, 0 or 1; 0 for zeros and for NaN, as torch.sign has it.
template <class T>
PYNAS_INLINE Vec<T> sign(Vec<T> v) {
  const Vec<T> one = broadcast<T>(T(1));
  const auto positive = v > zero<T>();
  const auto negative = v < zero<T>();
  return (positive ? one : zero<T>()) - (negative ? one : zero<T>());
}

template <class T>
PYNAS_INLINE T sum(Vec<T> v) {
  T total = 0;
  for (int i = 0; i < kLanes<T>; ++i) total += v[i];
  return total;
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
