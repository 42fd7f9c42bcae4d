#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/max.h>
#include <ATen/ops/min.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/unique_consecutive.h>
#include <ATen/ops/zeros.h>

#include <tuple>
#include <vector>

#include "bindings/tensor.h"
#include "ops/embedding_grad_moments/embedding_grad_moments.h"

namespace pynas::embedding_grad_moments_binding {
namespace {

constexpr const char* kOp = "embedding_grad_moments";

struct Lookups {
  at::Tensor rows;     // [U] int64, ascending
  at::Tensor offsets;  // [U + 1] int64
  at::Tensor order;    // [look-ups that are not padding] int64
};

// A counting sort on the CPU, for rows below `limit`: several times faster than at::sort where there are not
// far more rows than look-ups. Padding is left out.
Lookups count_by_row(const at::Tensor& flat, int64_t limit, int64_t padding_idx) {
  const int64_t n = flat.numel();
  const int64_t* indices = flat.const_data_ptr<int64_t>();
  std::vector<int64_t> next(static_cast<size_t>(limit), 0);
  for (int64_t i = 0; i < n; ++i) ++next[static_cast<size_t>(indices[i])];
  if (padding_idx >= 0 && padding_idx < limit) next[static_cast<size_t>(padding_idx)] = 0;
  int64_t touched = 0, kept = 0;
  for (int64_t count : next) touched += count > 0;
  at::Tensor rows = at::empty({touched}, flat.options()), offsets = at::empty({touched + 1}, flat.options());
  int64_t* row = rows.mutable_data_ptr<int64_t>();
  int64_t* offset = offsets.mutable_data_ptr<int64_t>();
  for (int64_t v = 0; v < limit; ++v) {
    const int64_t count = next[static_cast<size_t>(v)];
    if (count == 0) continue;
    *row++ = v;
    *offset++ = next[static_cast<size_t>(v)] = kept;  // from here on, where the row's next position goes
    kept += count;
  }
  *offset = kept;
  at::Tensor order = at::empty({kept}, flat.options());
  int64_t* position = order.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    if (indices[i] != padding_idx) position[next[static_cast<size_t>(indices[i])]++] = i;
  }
  return {rows, offsets, order};
}

// A stable sort by row keeps positions, and so sample groups, ascending within each row.
Lookups sort_by_row(const at::Tensor& flat, int64_t padding_idx) {
  if (flat.is_cpu() && flat.numel() > 0) {
    const int64_t lowest = flat.min().item<int64_t>(), highest = flat.max().item<int64_t>();
    TORCH_CHECK_VALUE(lowest >= 0, kOp, ": indices: expected rows from 0, got ", lowest);
    if (highest < 8 * flat.numel() + 4096) return count_by_row(flat.contiguous(), highest + 1, padding_idx);
  }
  at::Tensor keys = flat, positions;
  if (padding_idx >= 0) {
    positions = flat.ne(padding_idx).nonzero().reshape({-1});
    keys = flat.index_select(0, positions);
  }
  auto [sorted, order] = at::sort(keys, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  if (padding_idx >= 0) order = positions.index_select(0, order);
  const auto [rows, inverse, counts] =
      at::unique_consecutive(sorted, /*return_inverse=*/false, /*return_counts=*/true, /*dim=*/std::nullopt);
  const at::Tensor offsets = at::cat({at::zeros({1}, counts.options()), counts.cumsum(0)});
  return {rows, offsets, order.contiguous()};
}

std::tuple<at::Tensor, at::Tensor> embedding_grad_moments_torch(const at::Tensor& grad_output,
                                                                const at::Tensor& indices,
                                                                int64_t padding_idx, int64_t moments,
                                                                int64_t group_size) {
  TORCH_CHECK_VALUE(moments > 0 && moments <= kMomentAll, kOp, ": moments: expected a mask of 1 to ",
                    +kMomentAll, ", got ", moments);
  EmbeddingGradMomentsParams params;
  params.dtype = dtype_of(grad_output, kOp, "grad_output");
  TORCH_CHECK_TYPE(indices.scalar_type() == at::kLong, kOp, ": indices: expected int64, got ",
                   indices.scalar_type());
  TORCH_CHECK_VALUE(indices.dim() == 2 && grad_output.dim() == 3 && grad_output.size(0) == indices.size(0) &&
                        grad_output.size(1) == indices.size(1) && grad_output.device() == indices.device(),
                    kOp, ": grad_output: expected [B, T, D] for indices ", indices.sizes(), " on ",
                    indices.device(), ", got ", grad_output.sizes(), " on ", grad_output.device());
  const int64_t batch = indices.size(0), positions = indices.size(1), features = grad_output.size(2);
  check::group_size(kOp, group_size, batch);

  const Lookups lookups = sort_by_row(indices.reshape({-1}), padding_idx);
  // Look-ups [B T, D] with contiguous features; a view where the strides allow it.
  at::Tensor delta = grad_output.reshape({batch * positions, features});
  if (features > 1 && delta.stride(1) != 1) delta = delta.contiguous();

  params.moments = static_cast<uint32_t>(moments);
  params.grad_output = delta.const_data_ptr();
  params.order = lookups.order.const_data_ptr<int64_t>();
  params.offsets = lookups.offsets.const_data_ptr<int64_t>();
  params.rows = lookups.rows.size(0);
  params.features = features;
  params.grad_output_stride = delta.stride(0);
  params.group_positions = batch == 0 ? 0 : positions * group_size;
  params.groups = batch / group_size;
  at::Tensor values = at::empty({count_moments(params.moments), params.rows, features},
                                grad_output.options().dtype(accumulate_type(params.dtype)));
  params.values = values.mutable_data_ptr();
  if (params.rows > 0 && features > 0) PYNAS_DISPATCH_DEVICE(grad_output, embedding_grad_moments, params);
  return {lookups.rows, values};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.embedding_grad_moments");
  m.def(
      "embedding_grad_moments(Tensor grad_output, Tensor indices, int padding_idx, int moments, SymInt "
      "group_size) -> "
      "(Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag, at::Tag::dynamic_output_shape});
}
PYNAS_REGISTER(embedding_grad_moments, embedding_grad_moments_torch)

}  // namespace pynas::embedding_grad_moments_binding
