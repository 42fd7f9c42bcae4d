// Host buffers in a kernel's element type, filled from doubles that the type represents exactly.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "check.h"
#include "common/dtype.h"

namespace check {

inline size_t dtype_bytes(pynas::DType dtype) {
  if (dtype == pynas::DType::kFloat64) return 8;
  return dtype == pynas::DType::kFloat32 ? 4 : 2;
}

// The nearest of the type, ties to even.
inline uint16_t bfloat16_bits(float value) {
  if (std::isnan(value)) return 0x7fff;
  uint32_t word;
  std::memcpy(&word, &value, sizeof word);
  return static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
}
inline uint16_t float16_bits(double value) {
  if (std::isnan(value)) return 0x7fff;
  const double magnitude = std::fabs(value);
  int exponent = 0;
  std::frexp(std::max(magnitude, 0x1p-14), &exponent);  // the value, or the least normal one, < 2^exponent
  const double units = std::nearbyint(std::ldexp(magnitude, 11 - exponent));  // 1024 and more where normal
  const double bits = magnitude >= 65520 ? 0x7c00 : units + 1024 * (exponent + 13);
  return static_cast<uint16_t>(static_cast<int>(bits) | (std::signbit(value) ? 0x8000 : 0));
}

inline void store(pynas::DType dtype, void* data, size_t i, double value) {
  if (dtype == pynas::DType::kFloat64) static_cast<double*>(data)[i] = value;
  if (dtype == pynas::DType::kFloat32) static_cast<float*>(data)[i] = static_cast<float>(value);
  if (dtype == pynas::DType::kBFloat16)
    static_cast<uint16_t*>(data)[i] = bfloat16_bits(static_cast<float>(value));
  if (dtype == pynas::DType::kFloat16) static_cast<uint16_t*>(data)[i] = float16_bits(value);
}

inline double load(pynas::DType dtype, const void* data, size_t i) {
  if (dtype == pynas::DType::kFloat64) return static_cast<const double*>(data)[i];
  if (dtype == pynas::DType::kFloat32) return static_cast<double>(static_cast<const float*>(data)[i]);
  if (dtype == pynas::DType::kBFloat16)
    return static_cast<double>(pynas::to_float(static_cast<const pynas::BFloat16*>(data)[i]));
  return static_cast<double>(pynas::to_float(static_cast<const pynas::Float16*>(data)[i]));
}

inline double round_to(pynas::DType dtype, double value) {
  double rounded = 0;
  store(dtype, &rounded, 0, value);
  return load(dtype, &rounded, 0);
}

// Exactly `bytes` long, so that AddressSanitizer sees the first byte beyond; uninitialised bytes read as NaN.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : data_(std::malloc(bytes + (bytes == 0)), &std::free) {
    std::memset(data_.get(), 0xFF, bytes);
  }
  void* data() const { return data_.get(); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }

 private:
  std::unique_ptr<void, void (*)(void*)> data_;
};

// Element i of a result: float64 for float64 inputs, else float32.
inline double result(const Buffer& buffer, pynas::DType dtype, size_t i) {
  return dtype == pynas::DType::kFloat64 ? buffer.as<double>()[i] : buffer.as<float>()[i];
}

// float64's or float32's rounding over a sum of `terms` numbers whose absolute values add up to `scale`.
inline double tolerance(pynas::DType dtype, double scale) {
  return (dtype == pynas::DType::kFloat64 ? 1e-13 : 3e-6) * (scale + 1e-6);
}

}  // namespace check
