// Vectors of float from and to 16-bit storage. Rounds to nearest, ties to even, and keeps NaN, as torch does.
#pragma once

#include "common/simd.h"

namespace pynas::cpu::PYNAS_ISA_NS {

typedef uint32_t VecU32 __attribute__((vector_size(kVectorBytes)));
typedef uint16_t VecU16 __attribute__((vector_size(kVectorBytes / 2)));

PYNAS_INLINE Vec<float> load_as_float(const float* p) { return load(p); }
PYNAS_INLINE Vec<float> load_as_float(const BFloat16* p) {
  VecU16 half;
  __builtin_memcpy(&half, p, sizeof half);
  return reinterpret_cast<Vec<float>>(__builtin_convertvector(half, VecU32) << 16);
}

PYNAS_INLINE void store_from_float(float* p, Vec<float> v) { store(p, v); }
PYNAS_INLINE void store_from_float(BFloat16* p, Vec<float> v) {
  const VecU32 bits = reinterpret_cast<VecU32>(v);
  const VecU32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const VecU32 quiet_nan = (bits >> 16) | 0x40u;
  const VecU16 half = __builtin_convertvector(v == v ? rounded : quiet_nan, VecU16);
  __builtin_memcpy(p, &half, sizeof half);
}

// One value, for the lanes that do not fill a vector.
PYNAS_INLINE void from_float(float value, float& out) { out = value; }
PYNAS_INLINE void from_float(float value, BFloat16& out) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  out.bits = static_cast<uint16_t>(value == value ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16
                                                  : (bits >> 16) | 0x40u);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
