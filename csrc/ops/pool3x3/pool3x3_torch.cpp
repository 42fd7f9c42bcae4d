#include <ATen/ops/empty.h>

#include "bindings/tensor.h"
#include "ops/avg_pool2d/avg_pool2d_api.h"
#include "ops/pool3x3/pool3x3.h"
#include "ops/pool3x3/pool3x3_api.h"

namespace pynas {
namespace pool3x3_binding {
namespace {

constexpr const char* kOp = "pool3x3";

Pool3x3Params params_of(const Pool3x3Call& call, const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 4, kOp, ": x: expected [N, C, H, W], got ", x.sizes());
  TORCH_CHECK_VALUE(call.stride == 1 || call.stride == 2, kOp, ": stride: expected 1 or 2, got ",
                    call.stride);
  Pool3x3Params params;
  params.dtype = dtype_of(x, kOp, "x");
  TORCH_CHECK_TYPE(params.dtype != DType::kFloat16 || x.is_cuda(), kOp,
                   ": x: float16 has kernels on CUDA only, use float32 or bfloat16");
  params.x = x.const_data_ptr();
  params.batch = x.size(0);
  params.channels = x.size(1);
  params.height = x.size(2);
  params.width = x.size(3);
  params.stride = call.stride;
  params.out_height = (params.height + call.stride - 1) / call.stride;
  params.out_width = (params.width + call.stride - 1) / call.stride;
  if (!call.gates.defined()) return params;
  const at::ScalarType type = accumulate_type(params.dtype);
  TORCH_CHECK_VALUE(call.gates.scalar_type() == type && call.gates.is_contiguous() &&
                        call.gates.device() == x.device() && call.max_gate < call.gates.numel() &&
                        call.average_gate < call.gates.numel(),
                    kOp, ": gates: expected a contiguous ", type, " vector on ", x.device(),
                    " that the gates' indices lie in, got ", call.gates.scalar_type(), " ",
                    call.gates.sizes(), " on ", call.gates.device());
  params.gates = call.gates.const_data_ptr();
  params.max_gate = call.max_gate;
  params.avg_gate = call.average_gate;
  return params;
}

// Means alone, without gates: the separable kernel of ops/avg_pool2d takes 3 + 3 loads a pixel instead of 9.
bool is_separable(const Pool3x3Call& call, const Pool3x3Params& p) {
  return call.average && !call.max && p.gates == nullptr && call.x.is_cpu() &&
         (p.dtype == DType::kFloat32 || p.dtype == DType::kBFloat16) && call.x.numel() > 0;
}

at::Tensor dense_gradient(const at::Tensor& grad, const at::Tensor& x, const Pool3x3Params& p) {
  const int64_t sizes[] = {p.batch, p.channels, p.out_height, p.out_width};
  TORCH_CHECK_VALUE(grad.defined() && grad.sizes() == at::IntArrayRef(sizes) &&
                        grad.scalar_type() == x.scalar_type() && grad.device() == x.device(),
                    kOp, ": gradient: expected ", x.scalar_type(), " ", at::IntArrayRef(sizes), " on ",
                    x.device());
  return grad.contiguous(at::MemoryFormat::ChannelsLast);
}

}  // namespace
}  // namespace pool3x3_binding

std::pair<at::Tensor, at::Tensor> pool3x3_forward(const Pool3x3Call& call) {
  using namespace pool3x3_binding;
  const at::Tensor x = call.x.contiguous(at::MemoryFormat::ChannelsLast);
  Pool3x3Params params = params_of(call, x);
  if (is_separable(call, params)) {
    return {at::Tensor(), avg_pool2d_torch(x, {3, 3}, {call.stride, call.stride}, {1, 1}, false)};
  }
  const auto make = [&] {
    return at::empty({params.batch, params.channels, params.out_height, params.out_width},
                     x.options().memory_format(at::MemoryFormat::ChannelsLast));
  };
  std::pair<at::Tensor, at::Tensor> out;
  if (call.max) params.max_out = (out.first = make()).mutable_data_ptr();
  if (call.average) params.avg_out = (out.second = make()).mutable_data_ptr();
  if (x.numel() == 0 || (!call.max && !call.average)) return out;
  PYNAS_DISPATCH_DEVICE(x, pool3x3_forward, params);
  return out;
}

void pool3x3_backward(const Pool3x3Call& call, const at::Tensor& grad_max, const at::Tensor& grad_average,
                      at::Tensor& grad_input, bool accumulate) {
  using namespace pool3x3_binding;
  const at::Tensor x = call.x.contiguous(at::MemoryFormat::ChannelsLast);
  Pool3x3Params params = params_of(call, x);
  TORCH_CHECK_VALUE(grad_input.sizes() == x.sizes() && grad_input.scalar_type() == x.scalar_type() &&
                        grad_input.is_contiguous(at::MemoryFormat::ChannelsLast) &&
                        grad_input.device() == x.device(),
                    kOp, ": grad_input: expected a channels_last tensor like x, ", x.sizes(), ", got ",
                    grad_input.scalar_type(), " ", grad_input.sizes());
  at::Tensor held_max, held_average;
  if (call.max) params.grad_max = (held_max = dense_gradient(grad_max, x, params)).const_data_ptr();
  if (call.average)
    params.grad_avg = (held_average = dense_gradient(grad_average, x, params)).const_data_ptr();
  params.grad_input = grad_input.mutable_data_ptr();
  params.accumulate = accumulate;
  if (x.numel() == 0 || (accumulate && !call.max && !call.average)) return;
  PYNAS_DISPATCH_DEVICE(x, pool3x3_backward, params);
}

namespace pool3x3_binding {
namespace {

Pool3x3Call call_of(const at::Tensor& x, int64_t stride, const std::optional<at::Tensor>& gates) {
  Pool3x3Call call;
  call.x = x;
  call.stride = stride;
  if (!gates.has_value()) return call;
  TORCH_CHECK_VALUE(gates->numel() == 2, kOp, ": gates: expected those of maximum and average, got ",
                    gates->sizes());
  call.gates = *gates;
  call.max_gate = 0;
  call.average_gate = 1;
  return call;
}

std::tuple<at::Tensor, at::Tensor> forward_torch(const at::Tensor& x, int64_t stride,
                                                 const std::optional<at::Tensor>& gates) {
  auto [max, average] = pool3x3_forward(call_of(x, stride, gates));
  return {max, average};
}

at::Tensor backward_torch(const at::Tensor& x, int64_t stride, const std::optional<at::Tensor>& gates,
                          const at::Tensor& grad_max, const at::Tensor& grad_average) {
  at::Tensor gradient = at::empty(x.sizes(), x.options().memory_format(at::MemoryFormat::ChannelsLast));
  pool3x3_backward(call_of(x, stride, gates), grad_max, grad_average, gradient, false);
  return gradient;
}

}  // namespace
}  // namespace pool3x3_binding

// The stage as an operator of its own, for tests and measurements; gates: of the maximum and of the average.
TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.def("pool3x3(Tensor x, int stride, Tensor? gates) -> (Tensor, Tensor)");
  m.def(
      "pool3x3_backward(Tensor x, int stride, Tensor? gates, Tensor grad_max, Tensor grad_average) -> "
      "Tensor");
}
PYNAS_REGISTER(pool3x3, pool3x3_binding::forward_torch)
PYNAS_REGISTER(pool3x3_backward, pool3x3_binding::backward_torch)

}  // namespace pynas
