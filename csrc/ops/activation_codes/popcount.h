// Counters of set bits, a vector of words at a time: add(counts, words) adds to each lane the set bits of
// that lane's word.
#pragma once

#include "common/simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pynas::cpu::PYNAS_ISA_NS {

using Words = Vec<uint64_t>;

#if defined(__AVX512F__) && !defined(__clang__)
#define PYNAS_VPOPCNT
// One instruction, of processors that x86-64-v4 does not promise: chosen when this one has it. As assembly,
// because an intrinsic would want its caller, and all that is inlined there, compiled for such processors.
struct VpopcntCounter {
  static bool supported() { return __builtin_cpu_supports("avx512vpopcntdq"); }
  PYNAS_INLINE static Words add(Words counts, Words words) {
    asm("vpopcntq %1, %0" : "=v"(words) : "v"(words));
    return counts + words;
  }
};
#endif

#if defined(__AVX512BW__) || defined(__AVX2__)
// Nibbles looked up in a register, then bytes added up by the sum of absolute differences from zero (Mula,
// Kurz, Lemire 2018: Faster Population Counts Using AVX2 Instructions).
struct ShuffleCounter {
  // Bits of 0 to 15 in the bytes of two words, over and over.
  static constexpr uint64_t kBitsOfNibble[] = {0x0302020102010100, 0x0403030203020201, 0x0302020102010100,
                                               0x0403030203020201, 0x0302020102010100, 0x0403030203020201,
                                               0x0302020102010100, 0x0403030203020201};

  PYNAS_INLINE static Words add(Words counts, Words words) {
    const Words nibble = broadcast<uint64_t>(0x0f0f0f0f0f0f0f0full);
    const Words low = words & nibble, high = words >> 4 & nibble;
#if defined(__AVX512BW__)
    const __m512i bits = reinterpret_cast<__m512i>(load(kBitsOfNibble));
    const __m512i bytes = _mm512_add_epi8(_mm512_shuffle_epi8(bits, reinterpret_cast<__m512i>(low)),
                                          _mm512_shuffle_epi8(bits, reinterpret_cast<__m512i>(high)));
    return counts + reinterpret_cast<Words>(_mm512_sad_epu8(bytes, _mm512_setzero_si512()));
#else
    const __m256i bits = reinterpret_cast<__m256i>(load(kBitsOfNibble));
    const __m256i bytes = _mm256_add_epi8(_mm256_shuffle_epi8(bits, reinterpret_cast<__m256i>(low)),
                                          _mm256_shuffle_epi8(bits, reinterpret_cast<__m256i>(high)));
    return counts + reinterpret_cast<Words>(_mm256_sad_epu8(bytes, _mm256_setzero_si256()));
#endif
  }
};
using Counter = ShuffleCounter;
#else
// Sums of neighbouring bits, then pairs, nibbles, bytes, in place.
struct PlainCounter {
  PYNAS_INLINE static Words add(Words counts, Words words) {
    words -= words >> 1 & 0x5555555555555555ull;
    words = (words & 0x3333333333333333ull) + (words >> 2 & 0x3333333333333333ull);
    words = (words + (words >> 4)) & 0x0f0f0f0f0f0f0f0full;
    words += words >> 8;
    words += words >> 16;
    words += words >> 32;
    return counts + (words & 0xff);
  }
};
using Counter = PlainCounter;
#endif

}  // namespace pynas::cpu::PYNAS_ISA_NS
