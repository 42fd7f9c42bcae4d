// 1x1 convolutions on the CPU, for the fused cells of a probing pass; without autograd.
#include "ops/conv1x1/conv1x1.h"

#include <ATen/ops/empty.h>

#include "bindings/tensor.h"

namespace pynas::conv1x1_binding {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

void check(const at::Tensor& x, const char* op, const char* name) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.is_contiguous(kChannelsLast), op, ": ", name,
                    ": expected a channels_last [N, C, H, W] tensor, got ", x.sizes(), " with strides ",
                    x.strides());
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, op, ": ", name,
                   ": expected float32 or bfloat16, got ", x.scalar_type());
}

void check_alike(const at::Tensor& x, const at::Tensor& other, const char* op, const char* name) {
  check(other, op, name);
  TORCH_CHECK_VALUE(other.size(0) == x.size(0) && other.size(2) == x.size(2) && other.size(3) == x.size(3) &&
                        other.scalar_type() == x.scalar_type(),
                    op, ": ", name, ": expected the images of ", x.sizes(), " in ", x.scalar_type(), ", got ",
                    other.sizes(), " in ", other.scalar_type());
}

Conv1x1Params params_of(const at::Tensor& x, int64_t in_channels, int64_t out_channels) {
  Conv1x1Params params;
  params.rows = x.size(0) * x.size(2) * x.size(3);
  params.in_channels = in_channels;
  params.out_channels = out_channels;
  params.dtype = x.scalar_type() == at::kFloat ? DType::kFloat32 : DType::kBFloat16;
  return params;
}

void check_weight(const at::Tensor& weight, const at::Tensor& x, int64_t dim, const char* op) {
  TORCH_CHECK_VALUE(weight.dim() == 4 && weight.size(2) == 1 && weight.size(3) == 1 &&
                        weight.size(dim) == x.size(1) && weight.scalar_type() == x.scalar_type(),
                    op, ": weight: expected [O, C, 1, 1] with ", x.size(1),
                    dim == 1 ? " input channels" : " output channels", " in ", x.scalar_type(), ", got ",
                    weight.sizes(), " in ", weight.scalar_type());
}

at::Tensor images(const at::Tensor& like, int64_t channels) {
  return at::empty({like.size(0), channels, like.size(2), like.size(3)},
                   like.options().memory_format(kChannelsLast));
}

void run(Conv1x1Params& params, const at::Tensor& input, at::Tensor& output) {
  if (output.numel() == 0) return;
  const Parallel parallel = torch_parallel();
  const at::Tensor workspace = at::empty({conv1x1_workspace(params, parallel.threads)},
                                         input.options().dtype(at::kFloat).memory_format(std::nullopt));
  params.input = input.const_data_ptr();
  params.output = output.mutable_data_ptr();
  params.workspace = workspace.mutable_data_ptr<float>();
  PYNAS_DISPATCH_ISA(conv1x1, params, parallel);
}

at::Tensor conv1x1_torch(const at::Tensor& input, const at::Tensor& weight, bool relu) {
  check(input, "conv1x1", "input");
  check_weight(weight, input, 1, "conv1x1");
  at::Tensor output = images(input, weight.size(0));
  Conv1x1Params params = params_of(input, input.size(1), weight.size(0));
  params.weight = weight.const_data_ptr();
  params.weight_strides[0] = weight.stride(0);
  params.weight_strides[1] = weight.stride(1);
  params.relu = relu;
  run(params, input, output);
  return output;
}

at::Tensor conv1x1_backward_input(const at::Tensor& grad_output, const at::Tensor& weight,
                                  const std::optional<at::Tensor>& input, bool relu,
                                  const std::optional<at::Tensor>& addend) {
  const char* op = "conv1x1_backward_input";
  check(grad_output, op, "grad_output");
  check_weight(weight, grad_output, 0, op);
  at::Tensor output = images(grad_output, weight.size(1));
  Conv1x1Params params = params_of(grad_output, grad_output.size(1), weight.size(1));
  params.weight = weight.const_data_ptr();
  params.weight_strides[0] = weight.stride(1);
  params.weight_strides[1] = weight.stride(0);
  if (relu) {
    TORCH_CHECK_VALUE(input.has_value() && input->sizes() == output.sizes(), op,
                      ": input: relu=True needs the input ", output.sizes());
    check_alike(grad_output, *input, op, "input");
    params.mask = input->const_data_ptr();
  }
  if (addend.has_value()) {
    TORCH_CHECK_VALUE(addend->sizes() == output.sizes(), op, ": addend: expected ", output.sizes(), ", got ",
                      addend->sizes());
    check_alike(grad_output, *addend, op, "addend");
    params.addend = addend->const_data_ptr();
  }
  run(params, grad_output, output);
  return output;
}

at::Tensor conv1x1_backward_weight(const at::Tensor& grad_output, const at::Tensor& input, bool relu) {
  const char* op = "conv1x1_backward_weight";
  check(input, op, "input");
  check_alike(input, grad_output, op, "grad_output");
  at::Tensor result = at::empty({grad_output.size(1), input.size(1), 1, 1},
                                input.options().dtype(at::kFloat).memory_format(std::nullopt));
  if (input.numel() == 0 || grad_output.numel() == 0) return result.zero_();
  const Parallel parallel = torch_parallel();
  Conv1x1Params params = params_of(input, input.size(1), grad_output.size(1));
  const at::Tensor workspace = at::empty({conv1x1_workspace(params, parallel.threads)}, result.options());
  params.input = input.const_data_ptr();
  params.grad_output = grad_output.const_data_ptr();
  params.grad_weight = result.mutable_data_ptr<float>();
  params.relu = relu;
  params.workspace = workspace.mutable_data_ptr<float>();
  PYNAS_DISPATCH_ISA(conv1x1_grad_weight, params, parallel);
  return result;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.conv1x1");
  m.def("conv1x1(Tensor input, Tensor weight, bool relu) -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def(
      "conv1x1_backward_input(Tensor grad_output, Tensor weight, Tensor? input, bool relu, Tensor? addend) "
      "-> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def("conv1x1_backward_weight(Tensor grad_output, Tensor input, bool relu) -> Tensor",
        {at::Tag::pt2_compliant_tag});
}
// CPU only, as conv3x3.
PYNAS_REGISTER_CPU(conv1x1, conv1x1_torch)
PYNAS_REGISTER_CPU(conv1x1_backward_input, conv1x1_backward_input)
PYNAS_REGISTER_CPU(conv1x1_backward_weight, conv1x1_backward_weight)

}  // namespace pynas::conv1x1_binding
