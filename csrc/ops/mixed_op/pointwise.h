// Products of 1x1 convolutions over rows of channels, forward and backward, for the compositions of mixed_op.
#pragma once

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>

#include "bindings/tensor.h"
#include "ops/conv1x1/conv1x1.h"
#include "ops/mixed_op/edge.h"

namespace pynas {

inline at::Tensor matrix(const at::Tensor& weight) { return weight.view({weight.size(0), weight.size(1)}); }

// Whether rows go through the kernel of conv1x1, which rectifies, masks and adds on the way. Other devices
// and dtypes get a matrix product.
inline bool fast1x1(const EdgeCall& call) {
  return call.x.is_cpu() && (call.x.scalar_type() == at::kFloat || call.x.scalar_type() == at::kBFloat16);
}

// rows [R, C] times weight [O, C, 1, 1]; transposed: rows [R, O] times the transposed weight.
inline Conv1x1Params rows_params(const at::Tensor& rows, const at::Tensor& weight, bool transposed) {
  Conv1x1Params params;
  params.rows = rows.size(0);
  params.in_channels = weight.size(transposed ? 0 : 1);
  params.out_channels = weight.size(transposed ? 1 : 0);
  params.dtype = rows.scalar_type() == at::kFloat ? DType::kFloat32 : DType::kBFloat16;
  params.input = rows.const_data_ptr();
  params.weight = weight.const_data_ptr();
  params.weight_strides[0] = transposed ? 1 : weight.size(1);
  params.weight_strides[1] = transposed ? weight.size(1) : 1;
  return params;
}

inline at::Tensor run_rows(Conv1x1Params& params, const at::Tensor& like, bool weight_gradient) {
  const Parallel parallel = torch_parallel();
  const at::Tensor workspace =
      at::empty({conv1x1_workspace(params, parallel.threads)}, like.options().dtype(at::kFloat));
  params.workspace = workspace.mutable_data_ptr<float>();
  at::Tensor output;
  if (weight_gradient) {
    output = at::empty({params.out_channels, params.in_channels}, workspace.options());
    params.grad_weight = output.mutable_data_ptr<float>();
    PYNAS_DISPATCH_ISA(conv1x1_grad_weight, params, parallel);
  } else {
    output = at::empty({params.rows, params.out_channels}, like.options());
    params.output = output.mutable_data_ptr();
    PYNAS_DISPATCH_ISA(conv1x1, params, parallel);
  }
  return output;
}

// rows W^T [R, O], or with `relu` max(0, rows) W^T.
inline at::Tensor pointwise(const EdgeCall& call, const at::Tensor& rows, const at::Tensor& weight,
                            bool relu) {
  if (!fast1x1(call)) return at::mm(relu ? at::relu(rows) : rows, matrix(weight).t());
  Conv1x1Params params = rows_params(rows, weight, false);
  params.relu = relu;
  return run_rows(params, rows, false);
}

// The gradient of the weight, grad^T rows. `relu`: of max(0, rows), where fast1x1(call);
// otherwise rows must be rectified already.
inline at::Tensor pointwise_weight(const EdgeCall& call, const at::Tensor& grad, const at::Tensor& rows,
                                   const at::Tensor& weight, bool relu) {
  if (!fast1x1(call)) return at::mm(grad.t(), rows).view(weight.sizes());
  Conv1x1Params params = rows_params(rows, weight, false);
  const at::Tensor whole = grad.contiguous();
  params.grad_output = whole.const_data_ptr();
  params.relu = relu;
  return run_rows(params, rows, true).view(weight.sizes()).to(weight.scalar_type());
}

// The gradient of the rows, grad W. Where fast1x1(call) it is 0 where `mask` <= 0, and `addend` is added;
// otherwise neither may be given.
inline at::Tensor pointwise_input(const EdgeCall& call, const at::Tensor& grad, const at::Tensor& weight,
                                  const at::Tensor& mask = {}, const at::Tensor& addend = {}) {
  if (!fast1x1(call)) return at::mm(grad, matrix(weight));
  const at::Tensor whole = grad.contiguous();
  Conv1x1Params params = rows_params(whole, weight, true);
  if (mask.defined()) params.mask = mask.const_data_ptr();
  if (addend.defined()) params.addend = addend.const_data_ptr();
  return run_rows(params, whole, false);
}

}  // namespace pynas
