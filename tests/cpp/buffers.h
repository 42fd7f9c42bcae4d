// Host buffers in a kernel's element type, filled from doubles that the type represents exactly.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>

#include "check.h"
#include "common/visit.h"

namespace check {

inline double round_to(pynas::DType dtype, double value) {
  switch (dtype) {
    case pynas::DType::kFloat64:
      return value;
    case pynas::DType::kFloat32:
      return static_cast<float>(value);
    case pynas::DType::kBFloat16:
      return __bfloat162float(__float2bfloat16(static_cast<float>(value)));
    case pynas::DType::kFloat16:
      return __half2float(__float2half(static_cast<float>(value)));
  }
  return value;
}

inline void store(pynas::DType dtype, void* data, size_t i, double value) {
  if (dtype == pynas::DType::kFloat64) static_cast<double*>(data)[i] = value;
  if (dtype == pynas::DType::kFloat32) static_cast<float*>(data)[i] = static_cast<float>(value);
  if (dtype == pynas::DType::kBFloat16) {
    static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16(static_cast<float>(value));
  }
  if (dtype == pynas::DType::kFloat16)
    static_cast<__half*>(data)[i] = __float2half(static_cast<float>(value));
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
