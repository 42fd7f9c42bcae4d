// 3x3 convolution with stride 1 and padding 1 on channels_last images, by Winograd's
// minimal filtering F(4x4, 3x3): an output tile of 4x4 pixels takes 36 multiplications
// for each pair of channels instead of 144.
//
//   y[n,h,w,o] = sum_{c,i,j} weight[o,c,i,j] r(x[n,h+i-1,w+j-1,c])
//
// r is the identity or ReLU; pixels outside the image are 0. With d_c the 6x6 input tile
// that a 4x4 output tile Y_o sees, D_o the 4x4 tile of dL/dy, w_oc the 3x3 kernel, the
// transforms A, B, G of tile.h and * element by element:
//
//   forward     Y_o       = A^T [sum_c (G w_oc G^T) * (B^T d_c B)] A
//   weight      dL/dw_oc  = G^T [sum_tiles (A D_o A^T) * (B^T d_c B)] G
//
// The gradient of r(x) is the forward convolution of dL/dy with the kernels rotated by 180 degrees and o, c
// exchanged; `mask` makes it that of x. The sums over c, and over tiles, are 36 independent matrix products.
// Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct Conv3x3Params {
  const void* input = nullptr;   // [N, H, W, C]: x, or dL/dy where the gradient of the input is wanted
  const void* mask = nullptr;    // [N, H, W, O] or null: the output is 0 where mask <= 0
  const void* weight = nullptr;  // elements (o, c, i, j) at weight_strides
  int64_t weight_strides[4] = {0, 0, 0, 0};
  void* output = nullptr;        // [N, H, W, O]
  const void* addend = nullptr;  // [N, H, W, O] or null: added to the (masked) output; not the output itself
  // Gradient of the weight: `input` is x, and beside it
  const void* grad_output = nullptr;  // [N, H, W, O]
  float* grad_weight = nullptr;       // the result: [groups, O, C, 3, 3], or
  bool packed = false;                // [groups, 3, 3, C, O], in which vectors are written whole
  int64_t groups = 1;                 // equal runs of consecutive samples; divides batch

  int64_t batch = 0, height = 0, width = 0;
  int64_t in_channels = 0, out_channels = 0;
  bool relu = false;              // r above
  DType dtype = DType::kFloat32;  // of all but grad_weight: kFloat32 or kBFloat16
  float* workspace = nullptr;     // of plan.h's size, on a boundary of 64 bytes
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void conv3x3(const Conv3x3Params&, const Parallel&);
                      void conv3x3_grad_weight(const Conv3x3Params&, const Parallel&))
}

}  // namespace pynas
