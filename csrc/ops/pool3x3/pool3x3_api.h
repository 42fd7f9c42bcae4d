// What other operators call of the 3 x 3 pools: see pool3x3.h for the formulas. Dtypes as in
// depthwise_api.h; no autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

namespace pynas {

// Which pools of x are meant. gates: [G] of float32 (float64 for float64 inputs) on the device of x, or
// undefined; a pool whose gate is zero gives zeros.
struct Pool3x3Call {
  at::Tensor x;  // [N, C, H, W]; channels_last is taken as it is, anything else is copied
  int64_t stride = 1;
  bool max = true, average = true;
  at::Tensor gates;
  int64_t max_gate = -1, average_gate = -1;
};

// The maximum and the average, each [N, C, ceil(H / stride), ceil(W / stride)] channels_last in x's dtype,
// undefined where it is not meant.
std::pair<at::Tensor, at::Tensor> pool3x3_forward(const Pool3x3Call& call);

// dL/dx of both, added to grad_input if accumulate, else written. The gradient of a pool not meant may be
// undefined. grad_input: like x, channels_last.
void pool3x3_backward(const Pool3x3Call& call, const at::Tensor& grad_max, const at::Tensor& grad_average,
                      at::Tensor& grad_input, bool accumulate);

}  // namespace pynas
