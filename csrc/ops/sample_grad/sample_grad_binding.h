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

// What a linear layer's operators work on, [B, T, out_channels] and [B, T, in_channels].
struct LinearOperands {
  at::Tensor grad_output, input;
};

// From [B, ..., out_channels] and [B, ..., in_channels], which it checks.
LinearOperands flatten_positions(const char* op, const at::Tensor& grad_output, const at::Tensor& input,
                                 int64_t group_size);

// Both fill everything but the sink, its results and the workspace. conv2d_sample_grad checks its arguments;
// `geometry` as in conv2d. The parameters point into the tensors.
SampleGradParams conv2d_sample_grad(const char* op, const at::Tensor& grad_output, const at::Tensor& input,
                                    const ConvGeometry& geometry, int64_t group_size, bool bias);
SampleGradParams linear_sample_grad(const char* op, const LinearOperands& operands, int64_t group_size,
                                    bool bias);

// Both allocate the results of the sink and run. run_moments: weight [K, *weight_sizes] and bias
// [K, out_channels], or [0] without one. run_products: norms [G], or the Gram matrix [G, G].
std::pair<at::Tensor, at::Tensor> run_moments(const char* op, SampleGradParams params, const at::Tensor& like,
                                              int64_t moments, at::IntArrayRef weight_sizes);
at::Tensor run_products(SampleGradParams params, const at::Tensor& like, SampleGradSink sink);

}  // namespace pynas
