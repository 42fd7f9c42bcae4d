// positive_bits(p): which of 64 neighbouring values are above zero, the first in bit 0. The compilers' vector
// extensions have no expression for it, the results of a comparison as bits of an integer.
#pragma once

#include "common/simd.h"
#include "common/visit.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pynas::cpu::PYNAS_ISA_NS {

// As integers, 16-bit floats above zero are 1 to infinity's bits; NaN and negative numbers lie outside.
PYNAS_INLINE int16_t infinity_bits(BFloat16) { return 0x7f80; }
PYNAS_INLINE int16_t infinity_bits(Float16) { return 0x7c00; }

PYNAS_INLINE bool is_positive(float value) { return value > 0; }
PYNAS_INLINE bool is_positive(double value) { return value > 0; }
template <class T>
PYNAS_INLINE bool is_positive(T value) {
  const int16_t bits = static_cast<int16_t>(value.bits);
  return bits > 0 && bits <= infinity_bits(value);
}

// The bits of the first n <= 64 values, zeros behind them.
template <class T>
PYNAS_INLINE uint64_t positive_bits(const T* p, int n) {
  uint64_t word = 0;
  for (int i = 0; i < n; ++i) word |= static_cast<uint64_t>(is_positive(p[i])) << i;
  return word;
}

// The kLanes<T> bits of one vector.
#if defined(__AVX512F__)
PYNAS_INLINE uint64_t vector_bits(const float* p) {
  return _mm512_cmp_ps_mask(_mm512_loadu_ps(p), _mm512_setzero_ps(), _CMP_GT_OQ);
}
PYNAS_INLINE uint64_t vector_bits(const double* p) {
  return _mm512_cmp_pd_mask(_mm512_loadu_pd(p), _mm512_setzero_pd(), _CMP_GT_OQ);
}
template <class T>
PYNAS_INLINE uint64_t vector_bits(const T* p) {
  const __m512i v = _mm512_loadu_si512(p);
  const __mmask32 number = _mm512_cmple_epi16_mask(v, _mm512_set1_epi16(infinity_bits(T{})));
  return _mm512_mask_cmpgt_epi16_mask(number, v, _mm512_setzero_si512());
}
#elif defined(__AVX2__)
PYNAS_INLINE uint64_t vector_bits(const float* p) {
  return static_cast<uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(p), _mm256_setzero_ps(), _CMP_GT_OQ)));
}
PYNAS_INLINE uint64_t vector_bits(const double* p) {
  return static_cast<uint32_t>(
      _mm256_movemask_pd(_mm256_cmp_pd(_mm256_loadu_pd(p), _mm256_setzero_pd(), _CMP_GT_OQ)));
}
template <class T>
PYNAS_INLINE uint64_t vector_bits(const T* p) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i above = _mm256_cmpgt_epi16(v, _mm256_setzero_si256());
  const __m256i beyond = _mm256_cmpgt_epi16(v, _mm256_set1_epi16(infinity_bits(T{})));
  const __m256i words = _mm256_andnot_si256(beyond, above);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  return static_cast<uint32_t>(_mm_movemask_epi8(bytes));
}
#elif defined(__x86_64__)
PYNAS_INLINE uint64_t vector_bits(const float* p) {
  return static_cast<uint32_t>(_mm_movemask_ps(_mm_cmpgt_ps(_mm_loadu_ps(p), _mm_setzero_ps())));
}
PYNAS_INLINE uint64_t vector_bits(const double* p) {
  return static_cast<uint32_t>(_mm_movemask_pd(_mm_cmpgt_pd(_mm_loadu_pd(p), _mm_setzero_pd())));
}
template <class T>
PYNAS_INLINE uint64_t vector_bits(const T* p) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i above = _mm_cmpgt_epi16(v, _mm_setzero_si128());
  const __m128i beyond = _mm_cmpgt_epi16(v, _mm_set1_epi16(infinity_bits(T{})));
  const __m128i words = _mm_andnot_si128(beyond, above);
  return static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(words, _mm_setzero_si128())));
}
#else
template <class T>
PYNAS_INLINE uint64_t vector_bits(const T* p) {
  return positive_bits(p, kLanes<T>);
}
#endif

template <class T>
PYNAS_INLINE uint64_t positive_bits(const T* p) {
  uint64_t word = 0;
  PYNAS_UNROLL
  for (int i = 0; i < 64; i += kLanes<T>) word |= vector_bits(p + i) << i;
  return word;
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
