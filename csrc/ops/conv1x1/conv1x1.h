// 1x1 convolution over rows of channels (channels_last images): the products of a linear layer, with the ReLU
// before it, its mask in the gradient and the addition of gradients in the same pass.
//
//   y_ro = sum_c w_oc r(x_rc),  r the identity or ReLU, r runs over the N H W pixels
//   gradient of the input: the same of dL/dy with o, c exchanged
//   gradient of the weight: dW_oc = sum_r dL/dy_ro r(x_rc)
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
  const void* addend = nullptr;       // [R, O] or null: added to the (masked) output; may be the output
  const void* grad_output = nullptr;  // gradient of the weight: dL/dy [R, O], and `input` is x
  float* grad_weight = nullptr;       // [O, C]: its result

  int64_t rows = 0, in_channels = 0, out_channels = 0;
  bool relu = false;              // r above
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
