#include "ops/batch_norm/batch_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <tuple>

#include "bindings/tensor.h"

namespace pynas::batch_norm_binding {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// [N, C] contiguous, or [N, C, H, W] in channels_last: both are rows of channels in memory.
bool is_rows(const at::Tensor& x) {
  return x.dim() == 2 ? x.is_contiguous() : x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

void check_rows(const at::Tensor& x, const char* op, const char* name) {
  TORCH_CHECK_VALUE(is_rows(x), op, ": ", name,
                    ": expected a contiguous [N, C] or a channels_last [N, C, H, W] tensor, got ", x.sizes(),
                    " with strides ", x.strides());
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, op, ": ", name,
                   ": expected float32 or bfloat16, got ", x.scalar_type());
}

void check_groups(const at::Tensor& x, int64_t groups, const char* op) {
  TORCH_CHECK_VALUE(groups >= 1 && x.size(0) % groups == 0, op, ": groups: expected a divisor of the ",
                    x.size(0), " samples, got ", groups);
}

const float* affine(const OptionalTensor& tensor, const at::Tensor& x, const char* op, const char* name,
                    int64_t groups = 1) {
  if (!tensor.has_value()) return nullptr;
  TORCH_CHECK_VALUE(
      tensor->scalar_type() == at::kFloat && tensor->is_contiguous() && tensor->numel() == groups * x.size(1),
      op, ": ", name, ": expected ", groups * x.size(1), " contiguous float32 values, got ",
      tensor->scalar_type(), " ", tensor->sizes());
  return tensor->const_data_ptr<float>();
}

// The workspace has `sums` doubles a channel for each thread, and as many more for at most twice as many
// float coefficients. With several groups every thread has coefficients of its own.
BatchNormParams params_of(const at::Tensor& x, at::Tensor& workspace, const Parallel& parallel,
                          int64_t sums = 2, int64_t groups = 1) {
  BatchNormParams params;
  params.x = x.const_data_ptr();
  params.channels = x.size(1);
  params.rows = params.channels == 0 ? 0 : x.numel() / params.channels;
  params.dtype = x.scalar_type() == at::kFloat ? DType::kFloat32 : DType::kBFloat16;
  params.groups = groups;
  const int64_t places = groups > 1 ? 2 * parallel.threads : parallel.threads + 1;
  workspace = at::empty({sums * places * params.channels}, x.options().dtype(at::kDouble));
  params.workspace = workspace.mutable_data_ptr<double>();
  return params;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm_torch(const at::Tensor& input,
                                                                const OptionalTensor& weight,
                                                                const OptionalTensor& bias, double eps,
                                                                int64_t groups) {
  check_rows(input, "batch_norm", "input");
  check_groups(input, groups, "batch_norm");
  TORCH_CHECK_VALUE(input.numel() >= 1, "batch_norm: input: expected at least one value per channel, got ",
                    input.sizes());
  const Parallel parallel = torch_parallel();
  at::Tensor workspace, out = at::empty_like(input);
  BatchNormParams params = params_of(input, workspace, parallel, 2, groups);
  at::Tensor mean =
      at::empty({groups, params.channels}, input.options().dtype(at::kFloat).memory_format(std::nullopt));
  if (groups == 1) mean = mean.squeeze(0);
  at::Tensor rstd = at::empty_like(mean);
  params.out = out.mutable_data_ptr();
  params.weight = affine(weight, input, "batch_norm", "weight");
  params.bias = affine(bias, input, "batch_norm", "bias");
  params.mean = mean.mutable_data_ptr<float>();
  params.rstd = rstd.mutable_data_ptr<float>();
  params.eps = eps;
  PYNAS_DISPATCH_ISA(batch_norm, params, parallel);
  return {out, mean, rstd};
}

at::Tensor batch_norm_backward_torch(const at::Tensor& grad_output, const at::Tensor& input,
                                     const OptionalTensor& weight, const at::Tensor& mean,
                                     const at::Tensor& rstd) {
  check_rows(input, "batch_norm_backward", "input");
  TORCH_CHECK_VALUE(grad_output.sizes() == input.sizes() && grad_output.scalar_type() == input.scalar_type(),
                    "batch_norm_backward: grad_output: expected ", input.scalar_type(), " ", input.sizes(),
                    ", got ", grad_output.scalar_type(), " ", grad_output.sizes());
  const at::Tensor grad = grad_output.contiguous(input.suggest_memory_format());
  const int64_t groups = mean.dim() == 2 ? mean.size(0) : 1;
  check_groups(input, groups, "batch_norm_backward");
  if (input.numel() == 0) return at::empty_like(input);
  const Parallel parallel = torch_parallel();
  at::Tensor workspace, out = at::empty_like(input);
  BatchNormParams params = params_of(input, workspace, parallel, 2, groups);
  params.grad_output = grad.const_data_ptr();
  params.out = out.mutable_data_ptr();
  params.weight = affine(weight, input, "batch_norm_backward", "weight");
  params.mean = const_cast<float*>(affine(mean, input, "batch_norm_backward", "mean", groups));
  params.rstd = const_cast<float*>(affine(rstd, input, "batch_norm_backward", "rstd", groups));
  PYNAS_DISPATCH_ISA(batch_norm_backward, params, parallel);
  return out;
}

std::tuple<at::Tensor, at::Tensor> batch_norm_double_backward_torch(
    const at::Tensor& adjoint, const at::Tensor& grad_output, const at::Tensor& input,
    const OptionalTensor& weight, const at::Tensor& mean, const at::Tensor& rstd) {
  check_rows(input, "batch_norm_double_backward", "input");
  for (const at::Tensor& like : {adjoint, grad_output})
    TORCH_CHECK_VALUE(like.sizes() == input.sizes() && like.scalar_type() == input.scalar_type(),
                      "batch_norm_double_backward: expected adjoint and grad_output as ", input.scalar_type(),
                      " ", input.sizes(), ", got ", like.scalar_type(), " ", like.sizes());
  const at::Tensor grad = grad_output.contiguous(input.suggest_memory_format());
  const at::Tensor of_grad_input = adjoint.contiguous(input.suggest_memory_format());
  if (input.numel() == 0) return {at::empty_like(input), at::empty_like(input)};
  const Parallel parallel = torch_parallel();
  at::Tensor workspace, out = at::empty_like(input), out_grad = at::empty_like(input);
  BatchNormParams params = params_of(input, workspace, parallel, 5);
  params.grad_output = grad.const_data_ptr();
  params.adjoint = of_grad_input.const_data_ptr();
  params.out = out.mutable_data_ptr();
  params.out_grad = out_grad.mutable_data_ptr();
  params.weight = affine(weight, input, "batch_norm_double_backward", "weight");
  params.mean = const_cast<float*>(affine(mean, input, "batch_norm_double_backward", "mean"));
  params.rstd = const_cast<float*>(affine(rstd, input, "batch_norm_double_backward", "rstd"));
  PYNAS_DISPATCH_ISA(batch_norm_double_backward, params, parallel);
  return {out_grad, out};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.batch_norm");
  m.def(
      "batch_norm(Tensor input, Tensor? weight, Tensor? bias, float eps, int groups=1) -> (Tensor, Tensor, "
      "Tensor)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "batch_norm_backward(Tensor grad_output, Tensor input, Tensor? weight, Tensor mean, Tensor rstd) -> "
      "Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "batch_norm_double_backward(Tensor adjoint, Tensor grad_output, Tensor input, Tensor? weight, Tensor "
      "mean, Tensor rstd) -> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}
// CPU only: on a GPU this is cuDNN's batch normalisation.
PYNAS_REGISTER_CPU(batch_norm, batch_norm_torch)
PYNAS_REGISTER_CPU(batch_norm_backward, batch_norm_backward_torch)
PYNAS_REGISTER_CPU(batch_norm_double_backward, batch_norm_double_backward_torch)

}  // namespace pynas::batch_norm_binding
