// 1x1 convolution over rows of channels (channels_last images): the products of a linear layer, with the ReLU
// before it, its mask in the gradient and the addition of gradients in the same pass. For the R = N H W
// pixels m, C input channels c and O output channels o, with f the identity or ReLU:
//
//   y_mo        = sum_c w_oc f(x_mc)
//   dL/df(x)_mc = sum_o dL/dy_mo w_oc          (the same product, with o and c exchanged)
//   dL/dx_mc    = [x_mc > 0] dL/df(x)_mc       (by `mask`)
//   dL/dw_oc    = sum_m dL/dy_mo f(x_mc)
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct Conv1x1Params {
  const void* input = nullptr;   // [R, C]: x, or dL/dy where the gradient of the input is wanted
  const void* mask = nullptr;    // [R, O] or null: the output is 0 where mask <= 0
  const void* weight = nullptr;  // elements (o, c) at weight_strides
  int64_t weight_strides[2] = {0, 0};
  void* output = nullptr;             // [R, O]
  const void* addend = nullptr;       // [R, O] or null: added to the (masked) output; not the output itself
  const void* grad_output = nullptr;  // gradient of the weight: dL/dy [R, O], and `input` is x
  float* grad_weight = nullptr;       // [O, C]: its result

  int64_t rows = 0, in_channels = 0, out_channels = 0;
  bool relu = false;              // f above
  DType dtype = DType::kFloat32;  // of all but grad_weight: kFloat32 or kBFloat16
  float* workspace = nullptr;     // conv1x1_workspace() floats
};

constexpr int64_t kConv1x1Rows = 48;  // worked on at a time

static inline int64_t conv1x1_workspace(const Conv1x1Params& p, int threads) {
  const int64_t C = (p.in_channels + 15) / 16 * 16, O = (p.out_channels + 15) / 16 * 16;
  return p.in_channels * O * (threads + 1) + threads * kConv1x1Rows * (C + O);
}

namespace cpu {
PYNAS_DECLARE_PER_ISA(void conv1x1(const Conv1x1Params&, const Parallel&);
                      void conv1x1_grad_weight(const Conv1x1Params&, const Parallel&))
}

}  // namespace pynas
