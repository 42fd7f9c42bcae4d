// What kernels use in place of raw CUDA syntax, so that one source serves nvcc and, in tests without a GPU,
// g++ (tests/cpp/cuda_emulation):
//   SHARED(float, tile, [16][33]);    static shared memory
//   DYNAMIC_SHARED(float, buffer);    dynamic shared memory
//   launch(kernel, grid, block, dynamic_bytes, stream, arguments...)
// Inline PTX lives in common/cuda_ptx.h.
#pragma once

#include <cstdint>

#include "common/math.h"

#if defined(PYNAS_CUDA_EMULATION)
#include "cuda_emulation/device.h"
#else
#include <stdexcept>
#include <string>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(128) unsigned char dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(dynamic_shared)

namespace pynas::cuda {

// Throws std::runtime_error when the launch is refused; errors inside the kernel surface at the next
// synchronisation.
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t stream,
            A&&... arguments) {
  cudaError_t status = cudaSuccess;
  if (dynamic_bytes > 48 * 1024) {
    status =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(dynamic_bytes));
  }
  if (status == cudaSuccess) {
    status = [&](P... values) {  // the parameters as the kernel has them, not as the caller wrote them
      void* pointers[] = {&values...};
      return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, dynamic_bytes,
                              stream);
    }(static_cast<P>(arguments)...);
  }
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("launching a CUDA kernel failed: ") + cudaGetErrorString(status));
  }
}

}  // namespace pynas::cuda
#endif

namespace pynas::cuda {

__device__ inline float to_accumulate(float value) { return value; }
__device__ inline double to_accumulate(double value) { return value; }
__device__ inline float to_accumulate(__half value) { return __half2float(value); }
__device__ inline float to_accumulate(__nv_bfloat16 value) { return __bfloat162float(value); }

// Sums are kept in float32, and in float64 for float64 inputs.
template <class T>
struct AccumulateOf {
  using type = float;
};
template <>
struct AccumulateOf<double> {
  using type = double;
};
template <class T>
using Accumulate = typename AccumulateOf<T>::type;

// A sum as it is stored.
template <class T>
__device__ T round_to(Accumulate<T> value) {
  return value;
}
template <>
__device__ inline __half round_to<__half>(float value) {
  return __float2half(value);
}
template <>
__device__ inline __nv_bfloat16 round_to<__nv_bfloat16>(float value) {
  return __float2bfloat16(value);
}

// The sum over the lanes of a warp, in every lane, in a fixed order.
template <class T>
__device__ inline T warp_sum(T value) {
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
  return value;
}

// Quotient and remainder by a divisor d known on the host, with a multiply-high and a shift in place of a
// division (Granlund & Montgomery 1994). Exact for numerators n < 2^31:
//
//   n / d = (n (2^32 + multiplier)) >> (32 + shift)
//   shift = ceil(log2 d),  multiplier = floor(2^32 (2^shift - d) / d) + 1
class Divider {
 public:
  Divider() = default;
  explicit Divider(uint32_t divisor) : divisor_(divisor) {
    while (shift_ < 31 && (1u << shift_) < divisor) ++shift_;
    multiplier_ = static_cast<uint32_t>((((uint64_t{1} << shift_) - divisor) << 32) / divisor + 1);
  }
  __device__ uint32_t divide(uint32_t n) const { return (__umulhi(n, multiplier_) + n) >> shift_; }
  __device__ uint32_t remainder(uint32_t n, uint32_t quotient) const { return n - quotient * divisor_; }

 private:
  uint32_t divisor_ = 1, multiplier_ = 1, shift_ = 0;
};

}  // namespace pynas::cuda
