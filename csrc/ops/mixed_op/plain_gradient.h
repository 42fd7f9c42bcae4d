// What the candidates of NAS-Bench-201 that are not normalised, x itself and its average pool, give backward:
//   out[n,h,w,c] = s g[n,h,w,c] + p q[n,h,w,c],   q = sum over (i,j) next to (h,w) of g[n,i,j,c] /
//   pixels(i,j)
// q is the pool's transpose, pixels(i,j) those of its 3x3 window that lie inside the image. The gradients of
// s and p come from the same reading: sum g x, and sum g pool(x) = sum q x, without making the pool again.
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
