#include <ATen/ops/_unique2.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_put.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/unique_consecutive.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "bindings/tensor.h"
#include "ops/embedding_grad_moments/embedding_grad_moments.h"

namespace pynas::embedding_grad_moments_binding {
namespace {

// Arguments of an operator, checked: gradients [B, T, D], indices [B, T] int64, padding -1 where there is none.
struct Arguments {
  at::Tensor grad_output, indices;
  int64_t padding = -1;
  int64_t num_embeddings, group_size, groups;

  Arguments(const char* op, const at::Tensor& gradients, const at::Tensor& rows, int64_t num_embeddings_,
            std::optional<int64_t> padding_idx, int64_t group_size_)
      : num_embeddings(num_embeddings_), group_size(group_size_) {
    check::floating(op, "grad_output", gradients);
    TORCH_CHECK_TYPE(rows.scalar_type() == at::kLong || rows.scalar_type() == at::kInt, op,
                     ": indices: expected int64 or int32, got ", check::Dtype{rows.scalar_type()});
    TORCH_CHECK_VALUE(rows.dim() >= 1 && gradients.dim() == rows.dim() + 1 &&
                          gradients.sizes().slice(0, rows.dim()) == rows.sizes(),
                      op, ": grad_output: expected the shape of indices and a feature axis, ",
                      check::Shape{rows.sizes()}, " and D, got ", check::Shape{gradients.sizes()});
    const int64_t batch = rows.size(0), positions = c10::multiply_integers(rows.sizes().slice(1));
    check::group_size(op, group_size, batch);
    groups = batch / group_size;
    TORCH_CHECK_VALUE(num_embeddings >= 1, op, ": num_embeddings: expected at least 1, got ", num_embeddings);
    if (padding_idx.has_value()) {
      TORCH_CHECK_VALUE(*padding_idx >= -num_embeddings && *padding_idx < num_embeddings, op,
                        ": padding_idx: expected None or a row of ", num_embeddings, " embeddings, got ",
                        *padding_idx);
      padding = *padding_idx < 0 ? *padding_idx + num_embeddings : *padding_idx;
    }
    grad_output = gradients.reshape({batch, positions, gradients.size(-1)});
    indices = rows.reshape({batch, positions}).to(at::kLong);
    // Elsewhere the look-up of the forward pass has checked them; reading them here would stall the device.
    if (!indices.is_cpu() || indices.numel() == 0) return;
    const auto [low, high] = at::aminmax(indices);
    const int64_t least = low.item<int64_t>();
    highest = high.item<int64_t>();
    TORCH_CHECK_VALUE(least >= 0 && highest < num_embeddings, op, ": indices: expected rows 0 to ",
                      num_embeddings - 1, ", got ", least < 0 ? least : highest,
                      "; num_embeddings must be the layer's");
  }

  int64_t batch() const { return grad_output.size(0); }
  int64_t features() const { return grad_output.size(2); }
  int64_t highest = -1;  // of the indices, where they are on the CPU
};

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
Lookups sort_by_row(const Arguments& arguments) {
  const at::Tensor flat = arguments.indices.reshape({-1});
  const int64_t padding_idx = arguments.padding;
  if (flat.is_cpu() && flat.numel() > 0 && arguments.highest < 8 * flat.numel() + 4096)
    return count_by_row(flat.contiguous(), arguments.highest + 1, padding_idx);
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
                                                                int64_t num_embeddings,
                                                                std::optional<int64_t> padding_idx,
                                                                int64_t moments, int64_t group_size) {
  const char* op = "embedding_grad_moments";
  TORCH_CHECK_VALUE(moments > 0 && moments <= kMomentAll, op, ": moments: expected a mask of 1 to ",
                    +kMomentAll, ", got ", moments);
  const Arguments arguments(op, grad_output, indices, num_embeddings, padding_idx, group_size);
  const int64_t batch = arguments.batch(), features = arguments.features();
  const int64_t positions = arguments.indices.size(1);
  const Lookups lookups = sort_by_row(arguments);
  // Look-ups [B T, D] with contiguous features; a view where the strides allow it.
  at::Tensor delta = arguments.grad_output.reshape({batch * positions, features});
  if (features > 1 && delta.stride(1) != 1) delta = delta.contiguous();

  EmbeddingGradMomentsParams params;
  params.dtype = dtype_of(grad_output, op, "grad_output");
  params.moments = static_cast<uint32_t>(moments);
  params.grad_output = delta.const_data_ptr();
  params.order = lookups.order.const_data_ptr<int64_t>();
  params.offsets = lookups.offsets.const_data_ptr<int64_t>();
  params.rows = lookups.rows.size(0);
  params.features = features;
  params.grad_output_stride = delta.stride(0);
  params.group_positions = batch == 0 ? 0 : positions * group_size;
  params.groups = arguments.groups;
  at::Tensor values = at::empty({count_moments(params.moments), params.rows, features},
                                grad_output.options().dtype(accumulate_type(params.dtype)));
  params.values = values.mutable_data_ptr();
  if (params.rows > 0 && features > 0) PYNAS_DISPATCH_DEVICE(grad_output, embedding_grad_moments, params);
  return {lookups.rows, values};
}

// target[index[n]] += rows[n], in one order: the sums have the same bits each time.
void add_rows(at::Tensor& target, const at::Tensor& index, const at::Tensor& rows) {
  // On CUDA index_add_ is a race of atomic additions; index_put_ sorts first.
  if (target.is_cuda()) {
    at::index_put_(target, {index}, rows, /*accumulate=*/true);
  } else {
    target.index_add_(0, index, rows);
  }
}

// The gradients of distinct (row, group) pairs, in ascending order: [N], [N] and [N, D].
struct Pairs {
  at::Tensor row, group, gradients;

  Pairs(const char* op, const Arguments& arguments) {
    const int64_t groups = std::max<int64_t>(1, arguments.groups);
    // They are told apart by row * groups + group.
    TORCH_CHECK_VALUE(arguments.num_embeddings <= (int64_t{1} << 62) / groups, op,
                      ": num_embeddings: expected at most 2^62 rows in all ", groups,
                      " sample groups together, got ", arguments.num_embeddings, " in each");
    const at::Tensor& indices = arguments.indices;
    const at::Tensor samples = at::arange(arguments.batch(), indices.options());
    const at::Tensor group_of = at::div(samples, arguments.group_size, "floor").unsqueeze(1);
    const at::Tensor kept = indices.ne(arguments.padding).reshape({-1}).nonzero().reshape({-1});
    const at::Tensor keys = indices.mul(groups).add(group_of).reshape({-1}).index_select(0, kept);
    const auto [pairs, inverse, _] = at::_unique2(keys, /*sorted=*/true, /*return_inverse=*/true);
    const at::Tensor delta = arguments.grad_output.reshape({-1, arguments.features()});
    const DType dtype = dtype_of(delta, op, "grad_output");
    gradients =
        at::zeros({pairs.size(0), arguments.features()}, delta.options().dtype(accumulate_type(dtype)));
    add_rows(gradients, inverse, delta.index_select(0, kept).to(gradients.scalar_type()));
    row = at::div(pairs, groups, "floor");
    group = at::remainder(pairs, groups);
  }
};

at::Tensor embedding_grad_norms_torch(const at::Tensor& grad_output, const at::Tensor& indices,
                                      int64_t num_embeddings, std::optional<int64_t> padding_idx,
                                      int64_t group_size) {
  const char* op = "embedding_grad_norms";
  const Arguments arguments(op, grad_output, indices, num_embeddings, padding_idx, group_size);
  const Pairs pairs(op, arguments);
  at::Tensor total = at::zeros({arguments.groups}, pairs.gradients.options());
  add_rows(total, pairs.group, pairs.gradients.square().sum(1));
  return total;
}

// Numbers in one dense block of the inner products: bounds memory whatever the numbers of groups, rows and
// features are.
constexpr int64_t kBlock = int64_t{1} << 22;

at::Tensor embedding_grad_gram_torch(const at::Tensor& grad_output, const at::Tensor& indices,
                                     int64_t num_embeddings, std::optional<int64_t> padding_idx,
                                     int64_t group_size) {
  const char* op = "embedding_grad_gram";
  const Arguments arguments(op, grad_output, indices, num_embeddings, padding_idx, group_size);
  const Pairs pairs(op, arguments);
  const int64_t groups = arguments.groups, features = arguments.features();
  at::Tensor total = at::zeros({groups, groups}, pairs.gradients.options());
  if (pairs.row.numel() == 0 || features == 0) return total;
  // Touched rows in blocks: a dense [G, rows, D] of one block at a time, pairs of a block lie together.
  const auto [touched, position, sizes] =
      at::unique_consecutive(pairs.row, /*return_inverse=*/true, /*return_counts=*/true);
  const at::Tensor host = sizes.cumsum(0).cpu();
  const int64_t* ends = host.const_data_ptr<int64_t>();
  const int64_t rows = touched.size(0);
  const int64_t width = std::max<int64_t>(1, kBlock / std::max<int64_t>(1, groups * features));
  for (int64_t begin = 0; begin < rows; begin += width) {
    const int64_t end = std::min(begin + width, rows);
    const int64_t first = begin == 0 ? 0 : ends[begin - 1], count = ends[end - 1] - first;
    const auto block = [&](const at::Tensor& tensor) { return tensor.narrow(0, first, count); };
    at::Tensor dense = at::zeros({groups, end - begin, features}, total.options());
    at::index_put_(dense, {block(pairs.group), block(position).sub(begin)}, block(pairs.gradients));
    const at::Tensor flat = dense.flatten(1);
    total.addmm_(flat, flat.t());
  }
  return total;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.embedding_grad_moments");
  m.def(
      "embedding_grad_moments(Tensor grad_output, Tensor indices, SymInt num_embeddings, SymInt? "
      "padding_idx, int moments, SymInt group_size) -> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag, at::Tag::dynamic_output_shape});
}
TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.embedding_grad_norms");
  m.def(
      "embedding_grad_norms(Tensor grad_output, Tensor indices, SymInt num_embeddings, SymInt? padding_idx, "
      "SymInt group_size) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "embedding_grad_gram(Tensor grad_output, Tensor indices, SymInt num_embeddings, SymInt? padding_idx, "
      "SymInt group_size) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(embedding_grad_moments, embedding_grad_moments_torch)
PYNAS_REGISTER(embedding_grad_norms, embedding_grad_norms_torch)
PYNAS_REGISTER(embedding_grad_gram, embedding_grad_gram_torch)

}  // namespace pynas::embedding_grad_moments_binding
