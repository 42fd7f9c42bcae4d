// What every operator asks of its arguments before a kernel gets their addresses. Operators are called
// with anything that their schema lets through, also from torch.ops: what a schema does not say is
// checked here, or by the operator through these functions. Messages name the operator and the
// argument, what was expected and what was given.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <optional>
#include <utility>

namespace pynas::check {

// The most elements of a tensor, sizes of zero counted as one: products of a few sizes then fit an int64.
constexpr int64_t kMaxElements = int64_t{1} << 40;
// The largest kernel size, stride, padding, count and the like.
constexpr int64_t kMaxInt = (int64_t{1} << 31) - 1;

// ---- As Python writes them: torch.float32, (4, 5), (3,) ----

struct Dtype {
  at::ScalarType type;
};
struct Shape {
  at::IntArrayRef sizes;
};
std::ostream& operator<<(std::ostream& out, Dtype dtype);
std::ostream& operator<<(std::ostream& out, Shape shape);

// ---- Every tensor of every operator: see kernel() in bindings/tensor.h ----

// A tensor among an operator's arguments: the one at `position`, or its element `index` if that is a list.
struct Place {
  const at::Tensor* tensor = nullptr;
  int position = 0;
  int64_t index = -1;
};

// Throws what is wrong with `place`; all tensors must be on the device of `first`.
[[noreturn]] void refuse(const char* op, const Place& place, const Place& first);

// Whether the number of elements can be computed with, and they all lie within the tensor's storage, which
// somebody may have resized behind its back.
inline bool is_whole(const at::Tensor& tensor) {
  int64_t elements = 1;
  __int128 last = 0;
  const at::IntArrayRef sizes = tensor.sizes(), strides = tensor.strides();
  bool empty = false;
  for (size_t axis = 0; axis < sizes.size(); ++axis) {
    const int64_t size = std::max<int64_t>(sizes[axis], 1);
    if (size > kMaxElements / elements) return false;
    elements *= size;
    last += static_cast<__int128>(size - 1) * strides[axis];
    empty |= sizes[axis] == 0;
  }
  if (empty) return true;
  const c10::Storage& storage = tensor.unsafeGetTensorImpl()->unsafe_storage();
  if (!storage) return false;
  return (last + tensor.storage_offset() + 1) * static_cast<int64_t>(tensor.element_size()) <=
         static_cast<__int128>(storage.nbytes());
}

// Refuses a tensor that is undefined, not dense, not whole or not on the device of
// `first`; with `host` it may be on the CPU as well.
inline void argument(const char* op, const Place& place, const Place& first, bool host) {
  const at::Tensor& tensor = *place.tensor;
  if (!tensor.defined() || tensor.layout() != at::kStrided || !is_whole(tensor) ||
      (tensor.device() != first.tensor->device() && !(host && tensor.is_cpu())))
    refuse(op, place, first);
}

// Whether the dtype is float32, float64, bfloat16 or float16.
inline bool is_floating(const at::Tensor& tensor) {
  const at::ScalarType dtype = tensor.scalar_type();
  return dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16 || dtype == at::kHalf;
}

// `tensor` has one of these, and that of `other`.
void floating(const char* op, const char* name, const at::Tensor& tensor);
void same_dtype(const char* op, const char* name, const at::Tensor& tensor, const char* other_name,
                const at::Tensor& other);

// ---- Numbers ----

void in_range(const char* op, const char* name, int64_t value, int64_t least, int64_t most);
// Two numbers, height and width.
void pair(const char* op, const char* name, at::IntArrayRef values, int64_t least);
// group_size must divide the batch.
void group_size(const char* op, int64_t group_size, int64_t batch);
// The product must not exceed 2^47, zeros counted as one: for the sizes of what a kernel
// works on and no tensor has.
void product(const char* op, const char* what, std::initializer_list<int64_t> factors);
// A set of inputs as bits: there must be at most 64 inputs, and the bits beyond them must be 0.
void mask(const char* op, const char* name, int64_t value, size_t count);
int64_t count_bits(int64_t value);

// ---- Tensors that are written in place ----

struct Target {
  const char* name;
  int64_t index;  // in a list, or -1
  const at::Tensor* tensor;
};

// Each target must have memory of its own for every element, require no gradient where gradients are
// recorded, and share no memory with another target or with a source. Neither targets nor sources may be
// lazily negated or conjugated.
void updated(const char* op, at::ArrayRef<Target> targets, at::ArrayRef<Target> sources);

// Tells autograd that the values changed, so that a backward pass that saved them refuses to use them.
inline void bump_version(const at::Tensor& tensor) {
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

}  // namespace pynas::check
