#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>

#include <limits>

#include "bindings/tensor.h"
#include "bindings/update.h"
#include "common/math.h"
#include "ops/activation_codes/activation_codes.h"

namespace pynas::activation_codes_binding {
namespace {

constexpr int64_t kVectorWords = 8;  // rows of codes that are not returned end with a whole vector

// x as [B, F] rows in memory order: itself where its samples lie densely one behind the other, whatever the
// order within them; else a copy.
at::Tensor rows_of(const at::Tensor& x) {
  const bool dense =
      x.is_non_overlapping_and_dense() && (x.size(0) <= 1 || x.stride(0) * x.size(0) == x.numel());
  return dense ? x : x.contiguous();
}

void pack(const at::Tensor& rows, const char* op, uint64_t* codes, int64_t stride) {
  ActivationCodesParams params;
  params.x = rows.const_data_ptr();
  params.codes = codes;
  params.batch = rows.size(0);
  params.features = rows.numel() / rows.size(0);
  params.stride = stride;
  params.dtype = dtype_of(rows, op, "x");
  PYNAS_DISPATCH_DEVICE(rows, activation_codes, params);
}

void check_activations(const char* op, const at::Tensor& x) {
  check::floating(op, "x", x);
  TORCH_CHECK_VALUE(x.dim() >= 1, op, ": x: expected activations [B, ...] of B samples, got a scalar");
}

at::Tensor activation_codes_torch(const at::Tensor& x) {
  check_activations("activation_codes", x);
  const int64_t batch = x.size(0), features = c10::multiply_integers(x.sizes().slice(1));
  const int64_t words = ceil_div(features, 64);
  at::Tensor codes = at::empty({batch, words}, x.options().dtype(at::kLong));
  if (codes.numel() == 0) return codes;
  pack(rows_of(x), "activation_codes", reinterpret_cast<uint64_t*>(codes.mutable_data_ptr<int64_t>()), words);
  return codes;
}

void check_agreement(const char* op, const at::Tensor& agreement, const at::Tensor& like) {
  TORCH_CHECK_TYPE(agreement.scalar_type() == at::kLong, op, ": agreement: expected an int64 tensor, got ",
                   check::Dtype{agreement.scalar_type()});
  const int64_t shape[] = {like.size(0), like.size(0)};
  TORCH_CHECK_VALUE(agreement.sizes() == at::IntArrayRef(shape), op, ": agreement: expected the shape ",
                    check::Shape{shape}, " of pairs of samples, got ", check::Shape{agreement.sizes()});
  TORCH_CHECK_VALUE(agreement.is_contiguous(), op,
                    ": agreement: expected a contiguous tensor; make it with torch.zeros");
  check::updated(op, {{"agreement", -1, &agreement}}, {{"the other tensor", -1, &like}});
}

// Checks that sums stay in int64, where `more` is the most that one call adds; on the CPU only, since reading
// the sums would wait for a GPU.
void check_room(const char* op, const at::Tensor& agreement, int64_t more) {
  if (!agreement.is_cpu() || agreement.numel() == 0) return;
  const auto [least, most] = at::aminmax(agreement);
  TORCH_CHECK_VALUE(most.item<int64_t>() <= std::numeric_limits<int64_t>::max() - more, op,
                    ": agreement: expected sums that stay below 2^63, got ", most.item<int64_t>(), " and ",
                    more, " to add");
}

void agree(const uint64_t* codes, int64_t words, int64_t stride, int64_t features, int64_t times,
           at::Tensor& agreement) {
  CodeAgreementParams params;
  params.codes = codes;
  params.agreement = agreement.mutable_data_ptr<int64_t>();
  params.batch = agreement.size(0);
  params.words = words;
  params.stride = stride;
  params.features = features;
  params.times = times;
  PYNAS_DISPATCH_DEVICE(agreement, code_agreement, params);
}

void code_agreement_torch(const at::Tensor& codes, int64_t features, at::Tensor& agreement) {
  const char* op = "code_agreement";
  TORCH_CHECK_TYPE(codes.scalar_type() == at::kLong, op,
                   ": codes: expected an int64 tensor of activation_codes, got ",
                   check::Dtype{codes.scalar_type()});
  TORCH_CHECK_VALUE(codes.dim() == 2, op,
                    ": codes: expected 2 axes [B, W] as activation_codes gives, got shape ",
                    check::Shape{codes.sizes()});
  TORCH_CHECK_VALUE(features >= 0 && features / 64 + (features % 64 != 0) == codes.size(1), op,
                    ": features: expected the number of units packed into ", codes.size(1),
                    " words of 64, got ", features, "; pass x[0].numel()");
  check_agreement(op, agreement, codes);
  if (codes.numel() == 0) return;
  check_room(op, agreement, features);
  const at::Tensor rows = codes.contiguous();
  check::bump_version(agreement);
  agree(reinterpret_cast<const uint64_t*>(rows.const_data_ptr<int64_t>()), rows.size(1), rows.size(1),
        features, 1, agreement);
}

void code_agreement_update_torch(const at::Tensor& x, at::Tensor& agreement, int64_t times) {
  check_activations("code_agreement_update", x);
  check_agreement("code_agreement_update", agreement, x);
  const int64_t features = x.numel() / std::max<int64_t>(1, x.size(0));
  check::in_range("code_agreement_update", "times", times, 0,
                  std::numeric_limits<int64_t>::max() / std::max<int64_t>(1, features));
  if (x.numel() == 0) return;
  check_room("code_agreement_update", agreement, features * times);
  check::bump_version(agreement);
  const int64_t stride = ceil_div(ceil_div(features, 64), kVectorWords) * kVectorWords;
  const at::Tensor codes = at::empty({x.size(0), stride}, x.options().dtype(at::kLong));
  auto* words = reinterpret_cast<uint64_t*>(codes.mutable_data_ptr<int64_t>());
  pack(rows_of(x), "code_agreement_update", words, stride);
  agree(words, stride, stride, features, times, agreement);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.activation_codes");
  m.def("activation_codes(Tensor x) -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def("code_agreement(Tensor codes, int features, Tensor(a!) agreement) -> ()",
        {at::Tag::pt2_compliant_tag});
  m.def("code_agreement_update(Tensor x, Tensor(a!) agreement, int times=1) -> ()",
        {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(activation_codes, activation_codes_torch)
PYNAS_REGISTER(code_agreement, code_agreement_torch)
PYNAS_SEES_LAZY_SIGNS(code_agreement)
PYNAS_REGISTER(code_agreement_update, code_agreement_update_torch)
PYNAS_SEES_LAZY_SIGNS(code_agreement_update)

}  // namespace pynas::activation_codes_binding
