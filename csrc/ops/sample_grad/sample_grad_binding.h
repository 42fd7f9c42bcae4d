// What the bindings of sample_grad share: checks that name the argument, parameters from tensors, the call.
#pragma once

#include <ATen/ops/empty.h>

#include "bindings/tensor.h"
#include "ops/sample_grad/sample_grad.h"

namespace pynas {

struct ConvGeometry {
  at::IntArrayRef kernel_size, stride, padding, dilation;
  int64_t groups;
};

// Both check their arguments and fill everything but the sink, its results and the workspace. `geometry`: as
// in conv2d; linear layers have grad_output [B, T, out_channels] and input [B, T, in_channels].
SampleGradParams conv2d_sample_grad(const char* op, const at::Tensor& grad_output, const at::Tensor& input,
                                    const ConvGeometry& geometry, int64_t group_size, bool bias);
SampleGradParams linear_sample_grad(const char* op, const at::Tensor& grad_output, const at::Tensor& input,
                                    int64_t group_size, bool bias);

// Both allocate the results of the sink and run. run_moments: weight [K, *weight_sizes] and bias
// [K, out_channels], or [0] without one. run_products: norms [G], or the Gram matrix [G, G].
std::pair<at::Tensor, at::Tensor> run_moments(const char* op, SampleGradParams params, const at::Tensor& like,
                                              int64_t moments, at::IntArrayRef weight_sizes);
at::Tensor run_products(SampleGradParams params, const at::Tensor& like, SampleGradSink sink);

}  // namespace pynas
