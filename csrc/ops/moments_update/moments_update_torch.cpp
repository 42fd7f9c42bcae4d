#include "bindings/tensor.h"
#include "bindings/update.h"
#include "ops/moments_update/moments_update.h"

namespace pynas::moments_update_binding {
namespace {

constexpr const char* kOp = "moments_update";

void moments_update_torch(const at::Tensor& grad, at::Tensor& mean, at::Tensor& abs_mean, at::Tensor& m2,
                          int64_t count) {
  TORCH_CHECK_VALUE(count >= 1, kOp,
                    ": count: expected the number of gradients including this one, >= 1, got ", count);
  const at::ScalarType state = accumulate_type(dtype_of(grad, kOp, "grad"));
  for (const auto& [tensor, name] : {std::pair{&mean, "mean"}, {&abs_mean, "abs_mean"}, {&m2, "m2"}}) {
    TORCH_CHECK_VALUE(tensor->sizes() == grad.sizes(), kOp, ": ", name, ": expected the shape ",
                      check::Shape{grad.sizes()}, " of grad, got ", check::Shape{tensor->sizes()});
    TORCH_CHECK_TYPE(tensor->scalar_type() == state, kOp, ": ", name, ": expected ", check::Dtype{state},
                     " for a grad of ", check::Dtype{grad.scalar_type()}, ", got ",
                     check::Dtype{tensor->scalar_type()});
    TORCH_CHECK_VALUE(tensor->is_contiguous(), kOp, ": ", name,
                      ": expected a contiguous tensor; make it with torch.zeros");
  }
  check::updated(kOp, {{"mean", -1, &mean}, {"abs_mean", -1, &abs_mean}, {"m2", -1, &m2}},
                 {{"grad", -1, &grad}});
  if (grad.numel() == 0) return;
  const at::Tensor dense = grad.contiguous();
  MomentsUpdateParams params;
  params.grad = dense.const_data_ptr();
  params.mean = mean.mutable_data_ptr();
  params.abs_mean = abs_mean.mutable_data_ptr();
  params.m2 = m2.mutable_data_ptr();
  params.n = grad.numel();
  params.count = count;
  params.grad_dtype = dtype_of(grad, kOp, "grad");
  for (const at::Tensor& state : {mean, abs_mean, m2}) check::bump_version(state);
  PYNAS_DISPATCH_DEVICE(grad, moments_update, params);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.moments_update");
  m.def("moments_update(Tensor grad, Tensor(a!) mean, Tensor(b!) abs_mean, Tensor(c!) m2, int count) -> ()",
        {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(moments_update, moments_update_torch)
PYNAS_SEES_LAZY_SIGNS(moments_update)

}  // namespace pynas::moments_update_binding
