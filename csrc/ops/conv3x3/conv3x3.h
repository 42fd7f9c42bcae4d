// 3x3 convolution with stride 1 and padding 1 over rows of channels (channels_last images), by Winograd's
// minimal filtering F(4x4, 3x3): an output tile of 4x4 pixels takes 36 multiplications instead of 144.
//
//   y_nhwo = sum_ijc w_ocij r(x_n,h+i-1,w+j-1,c),  r the identity or ReLU, pixels outside the image 0
// With d the 6x6 input tile that a 4x4 output tile sees, and the transforms of tile.h:
//   forward               Y_o  = A^T [ sum_c (G w_oc G^T) * (B^T d_c B) ] A      (* element by element)
//   gradient of the input: the same of dL/dy, with w turned by half a circle and o, c exchanged
//   gradient of the weight dW_oc = G^T [ sum_tiles (A D_o A^T) * (B^T d_c B) ] G,  D the 4x4 tile of dL/dy
// The sums over c, and over tiles, are 36 independent matrix products.
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
  const void* addend = nullptr;  // [N, H, W, O] or null: added to the (masked) output; may be the output
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
