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

// Both check their arguments and fill everything but the sink.
SampleGradParams conv2d_sample_grad(const char* op, const at::Tensor& grad_output, const at::Tensor& input,
                                    const ConvGeometry& geometry, int64_t group_size, bool bias);
SampleGradParams linear_sample_grad(const char* op, const at::Tensor& grad_output, const at::Tensor& input,
                                    int64_t group_size, bool bias);

// Allocates the result of the sink and runs: [K, out_channels, in_channels / groups, kh, kw] and [K,
// out_channels] (or [0]) of moments, [G] of norms, [G, G] of a Gram matrix.
std::pair<at::Tensor, at::Tensor> run_moments(const char* op, SampleGradParams params, const at::Tensor& like,
                                              int64_t moments, at::IntArrayRef weight_sizes);
at::Tensor run_products(SampleGradParams params, const at::Tensor& like, SampleGradSink sink);

}  // namespace pynas
