// What other operators call of the depthwise stages: see depthwise.h for the formulas. CPU: float32, float64,
// bfloat16; CUDA: float16 as well. No autograd. S below is float32, and float64 for float64 inputs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pynas {

// h = max(scale x + offset, 0), which all convolutions of a call read.
struct DepthwiseInput {
  at::Tensor x;              // [N, C, H, W]; channels_last is taken as it is, anything else is copied
  int64_t stride = 1;        // 1 or 2
  at::Tensor scale, offset;  // [C] of S each, or both undefined: h = max(x, 0)
  at::Tensor gates;          // [G] of S on the device of x, or undefined: everything is computed
};

struct DepthwiseFilter {
  at::Tensor weight;     // [C, 1, k, k] in the dtype of x, k 3 or 5
  int64_t dilation = 1;  // 1 or 2; the padding is dilation (k - 1) / 2
  int64_t gate = -1;     // where gates[gate] is 0 nothing is computed and the result is zeros; -1: no gate
};

// One output [N, C, ceil(H / stride), ceil(W / stride)] of x's dtype, channels_last, for each of up to 4
// filters. The gates are read by the kernels: no call waits for a GPU.
std::vector<at::Tensor> depthwise_forward(const DepthwiseInput& input,
                                          const std::vector<DepthwiseFilter>& filters);

// dL/d(scale x + offset), without scale dL/dx, summed over all filters: added to grad_input if accumulate,
// else written to it. grad_input: like x, channels_last. The gradient of a filter whose gate is zero is not
// read.
void depthwise_backward_input(const DepthwiseInput& input, const std::vector<DepthwiseFilter>& filters,
                              const std::vector<at::Tensor>& grad_outputs, at::Tensor& grad_input,
                              bool accumulate);

// dL/dweight [C, 1, k, k] of S for each filter, in a fixed order of summation.
std::vector<at::Tensor> depthwise_backward_weight(const DepthwiseInput& input,
                                                  const std::vector<DepthwiseFilter>& filters,
                                                  const std::vector<at::Tensor>& grad_outputs);

}  // namespace pynas
