// The gradients of the candidates of NAS-Bench-201 that are not normalised, x itself with weight s and its
// 3x3 average pool (stride 1, padding 1) with weight p. With g = dL/dy, images [N, H, W, C]:
//
//   out[n,h,w,c] = s g[n,h,w,c] + p q[n,h,w,c]                                              (dL/dx)
//   q[n,h,w,c]   = sum_{|i-h| <= 1, |j-w| <= 1} g[n,i,j,c] / pixels(i,j)
//   dL/ds        = sum g x
//   dL/dp        = sum g pool(x) = sum q x
//
// (i, j) runs over pixels of the image, and pixels(i,j) counts those in the window of (i, j). q is the
// transposed pool of g; with it, dL/dp needs no pool of x, and one reading of g and x gives all four.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct PlainGradientParams {
  const float* grad = nullptr;  // g [N, H, W, C] contiguous
  const float* x = nullptr;     // [N, H, W, C]
  float* out = nullptr;         // [N, H, W, C]; null: only the sums are wanted
  double* sums = nullptr;       // [N * H, 2]: sum g x and sum q x of each row
  float* workspace = nullptr;   // [threads, (W + 2) * C]
  int64_t samples = 0, height = 0, width = 0, channels = 0;
  float skip = 0, pool = 0;  // s, p
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void plain_gradient(const PlainGradientParams&, const Parallel&))
}

}  // namespace pynas
