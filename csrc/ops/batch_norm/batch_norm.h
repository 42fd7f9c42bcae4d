// Training-mode batch normalisation over rows [rows, channels] (channels_last images, or [N, C] features),
// without running statistics and without gradients of the affine parameters: what a probing pass needs of it.
//
// Forward, with M = rows:
//   mean_c = 1/M sum_m x_mc,  var_c = 1/M sum_m (x_mc - mean_c)^2,  rstd_c = 1 / sqrt(var_c + eps)
//   y_mc = weight_c rstd_c (x_mc - mean_c) + bias_c
// Backward, with g = dL/dy, G_c = sum_m g_mc and H_c = rstd_c sum_m g_mc (x_mc - mean_c):
//   dL/dx_mc = weight_c rstd_c [g_mc - G_c / M - rstd_c (x_mc - mean_c) H_c / M]
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct BatchNormParams {
  const void* x = nullptr;            // [rows, channels] of dtype, contiguous
  const void* grad_output = nullptr;  // backward: [rows, channels] of dtype, contiguous
  void* out = nullptr;                // [rows, channels] of dtype: y, or dL/dx in backward
  const float* weight = nullptr;      // [channels] or null for ones
  const float* bias = nullptr;        // forward: [channels] or null for zeros
  float* mean = nullptr;              // [channels], written by forward, read by backward
  float* rstd = nullptr;              // [channels], likewise
  double* workspace = nullptr;        // [threads, 2, channels]
  int64_t rows = 0;
  int64_t channels = 0;
  double eps = 1e-5;
  DType dtype = DType::kFloat32;  // kFloat32 or kBFloat16
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void batch_norm(const BatchNormParams&, const Parallel&);
                      void batch_norm_backward(const BatchNormParams&, const Parallel&))
}

}  // namespace pynas
