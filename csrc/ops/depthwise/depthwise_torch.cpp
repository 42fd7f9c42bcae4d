#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "bindings/tensor.h"
#include "ops/depthwise/depthwise.h"
#include "ops/depthwise/depthwise_api.h"

namespace pynas {
namespace depthwise_binding {
namespace {

constexpr const char* kOp = "depthwise";

DType stage_dtype(const at::Tensor& x) {
  const DType dtype = dtype_of(x, kOp, "x");
  TORCH_CHECK_TYPE(dtype != DType::kFloat16 || x.is_cuda(), kOp,
                   ": x: float16 has kernels on CUDA only, use float32 or bfloat16");
  return dtype;
}

// [C] (or, for gates, any length) of the sums' type on x's device, as the kernels read it.
const void* vector_of(const at::Tensor& values, const at::Tensor& x, int64_t length, const char* name) {
  if (!values.defined()) return nullptr;
  const at::ScalarType type = accumulate_type(dtype_of(x, kOp, "x"));
  TORCH_CHECK_VALUE(values.scalar_type() == type && values.is_contiguous() && values.device() == x.device() &&
                        values.dim() == 1 && (length < 0 || values.numel() == length),
                    kOp, ": ", name, ": expected a contiguous ", type, " vector",
                    length < 0 ? "" : " of one value per channel", " on ", x.device(), ", got ",
                    values.scalar_type(), " ", values.sizes(), " on ", values.device());
  return values.const_data_ptr();
}

// A call with its tensors in the kernels' layout, kept alive as long as the parameters point to them.
struct Call {
  DepthwiseParams params;
  at::Tensor x, workspace;
  std::vector<at::Tensor> held;

  Call(const DepthwiseInput& input, const std::vector<DepthwiseFilter>& filters) {
    TORCH_CHECK_VALUE(input.x.dim() == 4, kOp, ": x: expected [N, C, H, W], got ", input.x.sizes());
    TORCH_CHECK_VALUE(input.stride == 1 || input.stride == 2, kOp, ": stride: expected 1 or 2, got ",
                      input.stride);
    TORCH_CHECK_VALUE(!filters.empty() && filters.size() <= kMaxDepthwise, kOp, ": filters: expected 1 to ",
                      kMaxDepthwise, ", got ", filters.size());
    TORCH_CHECK_VALUE(input.scale.defined() == input.offset.defined(), kOp,
                      ": scale, offset: expected both or neither");
    x = input.x.contiguous(at::MemoryFormat::ChannelsLast);
    params.dtype = stage_dtype(x);
    params.x = x.const_data_ptr();
    params.scale = vector_of(input.scale, x, x.size(1), "scale");
    params.offset = vector_of(input.offset, x, x.size(1), "offset");
    params.gates = vector_of(input.gates, x, -1, "gates");
    params.batch = x.size(0);
    params.channels = x.size(1);
    params.height = x.size(2);
    params.width = x.size(3);
    params.stride = input.stride;
    params.out_height = (params.height + input.stride - 1) / input.stride;
    params.out_width = (params.width + input.stride - 1) / input.stride;
    for (const DepthwiseFilter& filter : filters) add(filter, input.gates);
  }

  void add(const DepthwiseFilter& filter, const at::Tensor& gates) {
    const at::Tensor& w = filter.weight;
    TORCH_CHECK_VALUE(w.dim() == 4 && w.size(0) == x.size(1) && w.size(1) == 1 && w.size(2) == w.size(3) &&
                          (w.size(2) == 3 || w.size(2) == 5) && w.scalar_type() == x.scalar_type() &&
                          w.device() == x.device(),
                      kOp, ": weight: expected ", x.scalar_type(), " [", x.size(1),
                      ", 1, k, k] with k 3 or 5 on ", x.device(), ", got ", w.scalar_type(), " ", w.sizes(),
                      " on ", w.device());
    TORCH_CHECK_VALUE(filter.dilation == 1 || filter.dilation == 2, kOp, ": dilation: expected 1 or 2, got ",
                      filter.dilation);
    TORCH_CHECK_VALUE(filter.gate < 0 || (gates.defined() && filter.gate < gates.numel()), kOp,
                      ": gate: expected an index into gates or -1, got ", filter.gate);
    DepthwiseConv& conv = params.convs[params.count++];
    conv.kernel = w.size(2);
    conv.dilation = filter.dilation;
    conv.gate = filter.gate;
    held.push_back(w.contiguous());
    conv.weight = held.back().const_data_ptr();
  }

  std::vector<int64_t> out_sizes() const {
    return {params.batch, params.channels, params.out_height, params.out_width};
  }

  void set_gradients(const std::vector<at::Tensor>& grad_outputs) {
    TORCH_CHECK_VALUE(grad_outputs.size() == static_cast<size_t>(params.count), kOp,
                      ": grad_outputs: expected one per filter, got ", grad_outputs.size());
    for (int k = 0; k < params.count; ++k) {
      const at::Tensor& g = grad_outputs[k];
      TORCH_CHECK_VALUE(g.sizes() == at::IntArrayRef(out_sizes()) && g.scalar_type() == x.scalar_type() &&
                            g.device() == x.device(),
                        kOp, ": grad_outputs: expected ", x.scalar_type(), " ", at::IntArrayRef(out_sizes()),
                        ", got ", g.scalar_type(), " ", g.sizes());
      held.push_back(g.contiguous(at::MemoryFormat::ChannelsLast));
      params.convs[k].out = const_cast<void*>(held.back().const_data_ptr());
    }
  }

  void allocate_workspace(bool sums) {
    size_t bytes = cpu::depthwise_workspace(params, sums ? at::get_num_threads() : 0);
#if defined(PYNAS_WITH_CUDA)
    if (x.is_cuda()) bytes = sums ? cuda::depthwise_workspace(params) : 0;
#endif
    workspace =
        at::empty({static_cast<int64_t>(bytes)}, x.options().dtype(at::kByte).memory_format(std::nullopt));
    params.workspace = workspace.mutable_data_ptr();
  }
};

}  // namespace
}  // namespace depthwise_binding

std::vector<at::Tensor> depthwise_forward(const DepthwiseInput& input,
                                          const std::vector<DepthwiseFilter>& filters) {
  using namespace depthwise_binding;
  Call call(input, filters);
  std::vector<at::Tensor> outputs;
  for (int k = 0; k < call.params.count; ++k) {
    outputs.push_back(
        at::empty(call.out_sizes(), call.x.options().memory_format(at::MemoryFormat::ChannelsLast)));
    call.params.convs[k].out = outputs.back().mutable_data_ptr();
  }
  if (outputs[0].numel() == 0) return outputs;
  call.allocate_workspace(false);
  PYNAS_DISPATCH_DEVICE(call.x, depthwise_forward, call.params);
  return outputs;
}

void depthwise_backward_input(const DepthwiseInput& input, const std::vector<DepthwiseFilter>& filters,
                              const std::vector<at::Tensor>& grad_outputs, at::Tensor& grad_input,
                              bool accumulate) {
  using namespace depthwise_binding;
  Call call(input, filters);
  call.set_gradients(grad_outputs);
  TORCH_CHECK_VALUE(
      grad_input.sizes() == call.x.sizes() && grad_input.scalar_type() == call.x.scalar_type() &&
          grad_input.is_contiguous(at::MemoryFormat::ChannelsLast) && grad_input.device() == call.x.device(),
      kOp, ": grad_input: expected a channels_last tensor like x, ", call.x.sizes(), ", got ",
      grad_input.scalar_type(), " ", grad_input.sizes());
  if (grad_input.numel() == 0) return;
  call.params.grad_input = grad_input.mutable_data_ptr();
  call.params.accumulate = accumulate;
  call.allocate_workspace(false);
  PYNAS_DISPATCH_DEVICE(call.x, depthwise_backward_input, call.params);
}

std::vector<at::Tensor> depthwise_backward_weight(const DepthwiseInput& input,
                                                  const std::vector<DepthwiseFilter>& filters,
                                                  const std::vector<at::Tensor>& grad_outputs) {
  using namespace depthwise_binding;
  Call call(input, filters);
  call.set_gradients(grad_outputs);
  std::vector<at::Tensor> gradients;
  const bool empty = call.x.numel() == 0;
  for (int k = 0; k < call.params.count; ++k) {
    const auto options = call.x.options().dtype(accumulate_type(call.params.dtype));
    const at::IntArrayRef sizes = filters[k].weight.sizes();
    gradients.push_back(empty ? at::zeros(sizes, options) : at::empty(sizes, options));
    call.params.convs[k].grad_weight = gradients.back().mutable_data_ptr();
  }
  if (empty) return gradients;
  call.allocate_workspace(true);
  PYNAS_DISPATCH_DEVICE(call.x, depthwise_backward_weight, call.params);
  return gradients;
}

namespace depthwise_binding {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

DepthwiseInput input_of(const at::Tensor& x, int64_t stride, const OptionalTensor& scale,
                        const OptionalTensor& offset, const OptionalTensor& gates) {
  return {x, stride, scale.value_or(at::Tensor()), offset.value_or(at::Tensor()),
          gates.value_or(at::Tensor())};
}

std::vector<DepthwiseFilter> filters_of(at::TensorList weights, at::IntArrayRef dilations,
                                        const OptionalTensor& gates) {
  TORCH_CHECK_VALUE(dilations.size() == weights.size(), kOp, ": dilations: expected one per weight, got ",
                    dilations.size());
  std::vector<DepthwiseFilter> filters;
  for (size_t k = 0; k < weights.size(); ++k)
    filters.push_back({weights[k], dilations[k], gates.has_value() ? static_cast<int64_t>(k) : -1});
  return filters;
}

std::vector<at::Tensor> forward_torch(const at::Tensor& x, at::TensorList weights, at::IntArrayRef dilations,
                                      int64_t stride, const OptionalTensor& scale,
                                      const OptionalTensor& offset, const OptionalTensor& gates) {
  return depthwise_forward(input_of(x, stride, scale, offset, gates), filters_of(weights, dilations, gates));
}

at::Tensor backward_input_torch(const at::Tensor& x, at::TensorList weights, at::IntArrayRef dilations,
                                int64_t stride, const OptionalTensor& scale, const OptionalTensor& offset,
                                const OptionalTensor& gates, at::TensorList grad_outputs) {
  at::Tensor gradient = at::empty(x.sizes(), x.options().memory_format(at::MemoryFormat::ChannelsLast));
  depthwise_backward_input(input_of(x, stride, scale, offset, gates), filters_of(weights, dilations, gates),
                           grad_outputs.vec(), gradient, false);
  return gradient;
}

std::vector<at::Tensor> backward_weight_torch(const at::Tensor& x, at::TensorList weights,
                                              at::IntArrayRef dilations, int64_t stride,
                                              const OptionalTensor& scale, const OptionalTensor& offset,
                                              const OptionalTensor& gates, at::TensorList grad_outputs) {
  return depthwise_backward_weight(input_of(x, stride, scale, offset, gates),
                                   filters_of(weights, dilations, gates), grad_outputs.vec());
}

}  // namespace
}  // namespace depthwise_binding

// The stages as operators of their own, for tests and measurements; gates: one per weight.
TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.def(
      "depthwise_relu(Tensor x, Tensor[] weights, int[] dilations, int stride, Tensor? scale, Tensor? "
      "offset, Tensor? gates) -> Tensor[]");
  m.def(
      "depthwise_relu_backward_input(Tensor x, Tensor[] weights, int[] dilations, int stride, Tensor? scale, "
      "Tensor? offset, Tensor? gates, Tensor[] grad_outputs) -> Tensor");
  m.def(
      "depthwise_relu_backward_weight(Tensor x, Tensor[] weights, int[] dilations, int stride, Tensor? "
      "scale, Tensor? offset, Tensor? gates, Tensor[] grad_outputs) -> Tensor[]");
}
PYNAS_REGISTER(depthwise_relu, depthwise_binding::forward_torch)
PYNAS_REGISTER(depthwise_relu_backward_input, depthwise_binding::backward_input_torch)
PYNAS_REGISTER(depthwise_relu_backward_weight, depthwise_binding::backward_weight_torch)

}  // namespace pynas
