#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "bindings/tensor.h"
#include "ops/conv3x3/conv3x3_api.h"
#include "ops/conv3x3/plan.h"

namespace pynas {
namespace conv3x3_binding {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

void check_images(const at::Tensor& x, const char* op, const char* name) {
  TORCH_CHECK_VALUE(x.dim() == 4, op, ": ", name, ": expected [N, C, H, W], got ", x.sizes());
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, op, ": ", name,
                   ": expected float32 or bfloat16, got ", x.scalar_type());
}

void check_weight(const at::Tensor& weight, const at::Tensor& x, int64_t dim, const char* op) {
  TORCH_CHECK_VALUE(weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3, op,
                    ": weight: expected [O, C, 3, 3], got ", weight.sizes());
  TORCH_CHECK_VALUE(weight.size(dim) == x.size(1), op, ": weight: expected ", x.size(1),
                    dim == 1 ? " input channels" : " output channels", ", got ", weight.sizes());
  TORCH_CHECK_TYPE(weight.scalar_type() == x.scalar_type(), op, ": weight: expected ", x.scalar_type(),
                   " like the images, got ", weight.scalar_type());
}

// `other` must be like `x` but for the number of channels.
void check_like(const at::Tensor& other, const at::Tensor& x, int64_t channels, const char* op,
                const char* name) {
  TORCH_CHECK_VALUE(other.dim() == 4 && other.size(0) == x.size(0) && other.size(1) == channels &&
                        other.size(2) == x.size(2) && other.size(3) == x.size(3),
                    op, ": ", name, ": expected [", x.size(0), ", ", channels, ", ", x.size(2), ", ",
                    x.size(3), "], got ", other.sizes());
  TORCH_CHECK_TYPE(other.scalar_type() == x.scalar_type(), op, ": ", name, ": expected ", x.scalar_type(),
                   ", got ", other.scalar_type());
}

Conv3x3Params params_of(const at::Tensor& x, int64_t in_channels, int64_t out_channels) {
  Conv3x3Params params;
  params.batch = x.size(0);
  params.height = x.size(2);
  params.width = x.size(3);
  params.in_channels = in_channels;
  params.out_channels = out_channels;
  params.dtype = x.scalar_type() == at::kFloat ? DType::kFloat32 : DType::kBFloat16;
  return params;
}

// torch allocates on boundaries of 64 bytes.
at::Tensor allocate(int64_t floats, const at::Tensor& like) {
  return at::empty({floats}, like.options().dtype(at::kFloat).memory_format(std::nullopt));
}

at::Tensor images_like(const at::Tensor& x, int64_t channels) {
  return at::empty({x.size(0), channels, x.size(2), x.size(3)}, x.options().memory_format(kChannelsLast));
}

void convolve(Conv3x3Params& params, const at::Tensor& input, at::Tensor& output) {
  if (output.numel() == 0) return;
  if (params.in_channels == 0) {
    output.zero_();
    return;
  }
  const Parallel parallel = torch_parallel();
  const at::Tensor images = input.contiguous(kChannelsLast);
  const at::Tensor workspace = allocate(conv3x3_workspace(params, parallel.threads), input);
  params.input = images.const_data_ptr();
  params.output = output.mutable_data_ptr();
  params.workspace = workspace.mutable_data_ptr<float>();
  PYNAS_DISPATCH_ISA(conv3x3, params, parallel);
}

}  // namespace
}  // namespace conv3x3_binding

// Measured on Zen 4 with 2 threads. Below 16 channels vectors are not full; tiles must be mostly image, and
// so many that transforming the weights pays, which beyond 256 x 256 channels fit no cache.
bool conv3x3_supports(const at::Tensor& x, const at::Tensor& weight) {
  using namespace conv3x3_binding;
  if (!x.is_cpu() || x.dim() != 4 || weight.dim() != 4 || x.scalar_type() != weight.scalar_type())
    return false;
  if (x.scalar_type() != at::kFloat && x.scalar_type() != at::kBFloat16) return false;
  const int64_t C = x.size(1), O = weight.size(0);
  const int64_t tiles = (x.size(2) + 3) / 4 * ((x.size(3) + 3) / 4);
  return weight.size(1) == C && weight.size(2) == 3 && weight.size(3) == 3 && C >= 16 && O >= 16 &&
         C * O <= 256 * 256 && x.size(0) * tiles >= 16 && 6 * tiles <= x.size(2) * x.size(3) &&
         x.is_contiguous(kChannelsLast);
}

at::Tensor conv3x3_forward(const at::Tensor& input, const at::Tensor& weight, bool relu) {
  using namespace conv3x3_binding;
  check_images(input, "conv3x3", "input");
  check_weight(weight, input, 1, "conv3x3");
  at::Tensor output = images_like(input, weight.size(0));
  Conv3x3Params params = params_of(input, input.size(1), weight.size(0));
  params.weight = weight.const_data_ptr();
  for (int64_t d = 0; d < 4; ++d) params.weight_strides[d] = weight.stride(d);
  params.relu = relu;
  convolve(params, input, output);
  return output;
}

at::Tensor conv3x3_backward_input(const at::Tensor& grad_output, const at::Tensor& weight,
                                  const std::optional<at::Tensor>& input, bool relu,
                                  const std::optional<at::Tensor>& addend) {
  using namespace conv3x3_binding;
  const char* op = "conv3x3_backward_input";
  check_images(grad_output, op, "grad_output");
  check_weight(weight, grad_output, 0, op);
  TORCH_CHECK_VALUE(!relu || input.has_value(), op, ": input: relu=True needs the input, got None");
  at::Tensor output = images_like(grad_output, weight.size(1)), mask, added;
  Conv3x3Params params = params_of(grad_output, grad_output.size(1), weight.size(1));
  if (relu) {
    check_like(*input, grad_output, weight.size(1), op, "input");
    mask = input->contiguous(kChannelsLast);
    params.mask = mask.const_data_ptr();
  }
  if (addend.has_value()) {
    check_like(*addend, grad_output, weight.size(1), op, "addend");
    added = addend->contiguous(kChannelsLast);
    params.addend = added.const_data_ptr();
  }
  // The kernel rotated by 180 degrees, its channels exchanged.
  params.weight = weight.numel() == 0 ? nullptr
                                      : static_cast<const char*>(weight.const_data_ptr()) +
                                            2 * (weight.stride(2) + weight.stride(3)) * weight.element_size();
  params.weight_strides[0] = weight.stride(1);
  params.weight_strides[1] = weight.stride(0);
  params.weight_strides[2] = -weight.stride(2);
  params.weight_strides[3] = -weight.stride(3);
  convolve(params, grad_output, output);
  if (added.defined() && grad_output.size(1) == 0) output.copy_(added);
  return output;
}

at::Tensor conv3x3_backward_weight(const at::Tensor& grad_output, const at::Tensor& input, bool relu,
                                   int64_t groups) {
  using namespace conv3x3_binding;
  const char* op = "conv3x3_backward_weight";
  check_images(input, op, "input");
  TORCH_CHECK_VALUE(grad_output.dim() == 4, op, ": grad_output: expected [N, O, H, W], got ",
                    grad_output.sizes());
  check_like(grad_output, input, grad_output.size(1), op, "grad_output");
  TORCH_CHECK_VALUE(groups >= 1 && input.size(0) % groups == 0, op, ": groups: expected a divisor of the ",
                    input.size(0), " samples, got ", groups);
  const auto options = input.options().dtype(at::kFloat).memory_format(std::nullopt);
  const int64_t C = input.size(1), O = grad_output.size(1);
  // Many gradients are written in whole vectors; whoever reads them takes them in that order.
  const bool packed = groups > 1;
  const std::vector<int64_t> shape =
      packed ? std::vector<int64_t>{groups, 3, 3, C, O} : std::vector<int64_t>{groups, O, C, 3, 3};
  const bool none = input.numel() == 0 || grad_output.numel() == 0;
  at::Tensor result = none ? at::zeros(shape, options) : at::empty(shape, options);
  const at::Tensor gradients = packed ? result.permute({0, 4, 3, 1, 2}) : result;
  if (none) return gradients;
  const Parallel parallel = torch_parallel();
  const at::Tensor x = input.contiguous(kChannelsLast), grad = grad_output.contiguous(kChannelsLast);
  Conv3x3Params params = params_of(x, x.size(1), grad.size(1));
  const at::Tensor workspace = allocate(conv3x3_grad_weight_workspace(params, parallel.threads), x);
  params.input = x.const_data_ptr();
  params.grad_output = grad.const_data_ptr();
  params.grad_weight = result.mutable_data_ptr<float>();
  params.groups = groups;
  params.packed = packed;
  params.relu = relu;
  params.workspace = workspace.mutable_data_ptr<float>();
  PYNAS_DISPATCH_ISA(conv3x3_grad_weight, params, parallel);
  return gradients;
}

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.conv3x3");
  m.def("conv3x3(Tensor input, Tensor weight, bool relu) -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def(
      "conv3x3_backward_input(Tensor grad_output, Tensor weight, Tensor? input, bool relu, Tensor? "
      "addend=None) "
      "-> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def("conv3x3_backward_weight(Tensor grad_output, Tensor input, bool relu, int groups) -> Tensor",
        {at::Tag::pt2_compliant_tag});
}
// CPU only: on a GPU cuDNN has Winograd's kernels.
PYNAS_REGISTER_CPU(conv3x3, conv3x3_forward)
PYNAS_REGISTER_CPU(conv3x3_backward_input, conv3x3_backward_input)
PYNAS_REGISTER_CPU(conv3x3_backward_weight, conv3x3_backward_weight)

}  // namespace pynas
