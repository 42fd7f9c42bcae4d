// Element types that cross the kernel boundary. No torch here: the bindings translate.
#pragma once

#include <cstdint>
#include <cstring>

namespace pynas {

enum class DType : int32_t { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };

// Storage-only 16-bit types for CPU kernels, which compute in float32.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

inline float to_float(float value) { return value; }
inline double to_float(double value) { return value; }

inline float to_float(BFloat16 value) {
  const uint32_t word = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &word, sizeof result);
  return result;
}

inline float to_float(Float16 value) {
#if defined(__FLT16_MAX__)
  _Float16 half;
  std::memcpy(&half, &value.bits, sizeof half);
  return static_cast<float>(half);
#else
  // Shift exponent and mantissa into place, then rescale by 2^112: exact for normal and subnormal halves.
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fffu);
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  uint32_t word = magnitude >= 0x7c00u ? (0x7f800000u | (magnitude << 13)) : (magnitude << 13);
  float result;
  std::memcpy(&result, &word, sizeof result);
  if (magnitude < 0x7c00u) result *= 0x1p112f;
  std::memcpy(&word, &result, sizeof word);
  word |= sign;
  std::memcpy(&result, &word, sizeof result);
  return result;
#endif
}

}  // namespace pynas
