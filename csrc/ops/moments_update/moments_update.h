// Running moments of successive gradients, by Welford's update. With g the count-th
// gradient, element by element and in this order:
//
//   delta     = g - mean
//   mean     += delta / count
//   abs_mean += (|g| - abs_mean) / count
//   m2       += delta (g - mean)
//
// so that m2 = sum_k (g_k - mean)^2 over all gradients g_k so far.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct MomentsUpdateParams {
  const void* grad = nullptr;  // [n] of grad_dtype
  void* mean = nullptr;        // [n] float64 when grad_dtype is float64, else float32; so are the next two
  void* abs_mean = nullptr;    // [n]
  void* m2 = nullptr;          // [n]
  int64_t n = 0;
  int64_t count = 0;  // gradients seen, this one included; >= 1
  DType grad_dtype = DType::kFloat32;
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void moments_update(const MomentsUpdateParams&, const Parallel&))
}
namespace cuda {
void moments_update(const MomentsUpdateParams&, void* stream);  // stream: a cudaStream_t
}

}  // namespace pynas
