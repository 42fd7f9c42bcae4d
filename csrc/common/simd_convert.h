// Vectors of float from 16-bit storage and to bfloat16, which rounds to nearest, ties to
// even, and keeps NaN, as torch does.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/dtype.h"
#include "common/simd.h"

namespace pynas::cpu::PYNAS_ISA_NS {

typedef uint32_t VecU32 __attribute__((vector_size(kVectorBytes)));
typedef uint16_t VecU16 __attribute__((vector_size(kVectorBytes / 2)));

// kLanes<T> consecutive elements of storage type In as a vector of T.
template <class T, class In>
PYNAS_INLINE Vec<T> load_as(const In* p) {
  if constexpr (std::is_same_v<In, T>) {
    return load<T>(p);
  } else if constexpr (std::is_same_v<In, BFloat16>) {
    VecU16 bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    return reinterpret_cast<Vec<T>>(__builtin_convertvector(bits, VecU32) << 16);
  } else {
    // Exponent and mantissa shifted into place, then scaled by 2^112: exact for normal and subnormal halves.
    VecU16 bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    const VecU32 half = __builtin_convertvector(bits, VecU32);
    const VecU32 magnitude = (half & 0x7fffu) << 13;
    const VecU32 finite = reinterpret_cast<VecU32>(reinterpret_cast<Vec<T>>(magnitude) * 0x1p112f);
    const VecU32 value = magnitude >= (0x7c00u << 13) ? magnitude | 0x7f800000u : finite;
    return reinterpret_cast<Vec<T>>(value | (half & 0x8000u) << 16);
  }
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
PYNAS_INLINE void store_one(float value, float& out) { out = value; }
PYNAS_INLINE void store_one(double value, double& out) { out = value; }
PYNAS_INLINE void store_one(float value, BFloat16& out) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  out.bits = static_cast<uint16_t>(value == value ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16
                                                  : (bits >> 16) | 0x40u);
}

// The first `lanes` elements as floats, zeros behind them; a constant number of lanes leaves no branch.
template <class In>
PYNAS_INLINE Vec<float> load_lanes(const In* p, int lanes) {
  if (lanes == kLanes<float>) return load_as<float>(p);
  Vec<float> v{};
  for (int i = 0; i < lanes; ++i) v[i] = to_float(p[i]);
  return v;
}
template <class Out>
PYNAS_INLINE void store_lanes(Out* p, Vec<float> v, int lanes) {
  if (lanes == kLanes<float>) return store_from_float(p, v);
  for (int i = 0; i < lanes; ++i) store_one(v[i], p[i]);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
