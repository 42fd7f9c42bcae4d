#include "bindings/check.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>

#include <bit>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

namespace pynas::check {
namespace {

std::string label(const char* name, int64_t index) {
  return index < 0 ? std::string(name) : std::string(name) + "[" + std::to_string(index) + "]";
}

// The bytes of a target or source. Of tensors with gaps only those of the first element: whether two of these
// overlap is hard to decide, and the mistake that is made is to pass the same view more than once.
struct Span {
  uintptr_t begin, end;
  const Target* target;
};

Span span_of(const Target& target) {
  const at::Tensor& tensor = *target.tensor;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  const size_t bytes = tensor.is_non_overlapping_and_dense() ? tensor.nbytes() : tensor.element_size();
  return {begin, begin + bytes, &target};
}

bool overlaps_itself(const at::Tensor& tensor) {
  if (tensor.numel() <= 1 || tensor.is_non_overlapping_and_dense()) return false;
  // Elements do not overlap if, in the order of strides, every axis steps over all the axes below it.
  std::vector<std::pair<int64_t, int64_t>> axes;
  for (int64_t axis = 0; axis < tensor.dim(); ++axis)
    if (tensor.size(axis) > 1) axes.emplace_back(tensor.stride(axis), tensor.size(axis));
  std::sort(axes.begin(), axes.end());
  int64_t reach = 0;
  for (const auto& [stride, size] : axes) {
    if (stride <= reach) return true;
    reach += stride * (size - 1);
  }
  return false;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, Dtype dtype) {
  return out << "torch." << c10::getDtypeNames(dtype.type).first;
}

std::ostream& operator<<(std::ostream& out, Shape shape) {
  out << "(";
  for (size_t axis = 0; axis < shape.sizes.size(); ++axis) out << (axis > 0 ? ", " : "") << shape.sizes[axis];
  return out << (shape.sizes.size() == 1 ? ",)" : ")");
}

void refuse(const char* op, const Place& place, const Place& first) {
  const auto handle =
      c10::Dispatcher::singleton().findSchemaOrThrow(("pynas::" + std::string(op)).c_str(), "");
  const auto& arguments = handle.schema().arguments();
  const auto name_of = [&](const Place& each) {
    return label(arguments.at(static_cast<size_t>(each.position)).name().c_str(), each.index);
  };
  const at::Tensor& tensor = *place.tensor;
  const std::string name = name_of(place);
  TORCH_CHECK_VALUE(tensor.defined(), op, ": ", name, ": expected a tensor, got None");
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, op, ": ", name, ": expected a dense tensor, got one of ",
                    tensor.layout());
  TORCH_CHECK_VALUE(tensor.device() == first.tensor->device(), op, ": ", name, ": expected the device of ",
                    name_of(first), ", ", first.tensor->device(), ", got ", tensor.device(),
                    "; move it with ", name, ".to(", name_of(first), ".device)");
  int64_t elements = 1;
  for (const int64_t size : tensor.sizes()) {
    TORCH_CHECK_VALUE(std::max<int64_t>(size, 1) <= kMaxElements / elements, op, ": ", name,
                      ": expected at most 2^40 elements, got the shape ", Shape{tensor.sizes()});
    elements *= std::max<int64_t>(size, 1);
  }
  TORCH_CHECK_VALUE(false, op, ": ", name, ": expected memory behind the shape ", Shape{tensor.sizes()},
                    ", got a tensor whose storage has been freed or resized");
}

void floating(const char* op, const char* name, const at::Tensor& tensor) {
  TORCH_CHECK_TYPE(is_floating(tensor), op, ": ", name,
                   ": expected float32, float64, bfloat16 or float16, got ", Dtype{tensor.scalar_type()},
                   "; convert it, for example with ", name, ".float()");
}

void same_dtype(const char* op, const char* name, const at::Tensor& tensor, const char* other_name,
                const at::Tensor& other) {
  floating(op, name, tensor);
  TORCH_CHECK_TYPE(tensor.scalar_type() == other.scalar_type(), op, ": ", name, ": expected the dtype of ",
                   other_name, ", ", Dtype{other.scalar_type()}, ", got ", Dtype{tensor.scalar_type()},
                   "; convert it with ", name, ".to(", other_name, ".dtype)");
}

void in_range(const char* op, const char* name, int64_t value, int64_t least, int64_t most) {
  TORCH_CHECK_VALUE(value >= least && value <= most, op, ": ", name, ": expected ", least, " to ", most,
                    ", got ", value);
}

void pair(const char* op, const char* name, at::IntArrayRef values, int64_t least) {
  TORCH_CHECK_VALUE(values.size() == 2 && values[0] >= least && values[1] >= least && values[0] <= kMaxInt &&
                        values[1] <= kMaxInt,
                    op, ": ", name, ": expected two integers from ", least, " to ", kMaxInt, ", got ",
                    Shape{values});
}

void group_size(const char* op, int64_t group_size, int64_t batch) {
  TORCH_CHECK_VALUE(group_size >= 1, op, ": group_size: expected at least 1 sample to a group, got ",
                    group_size);
  const int64_t rest = batch % group_size;
  if (rest == 0) return;
  const std::string last = rest == 1 ? "the last sample" : "the last " + std::to_string(rest) + " samples";
  TORCH_CHECK_VALUE(false, op, ": group_size: expected a divisor of the batch size ", batch, ", got ",
                    group_size, "; drop ", last, " or choose another group_size");
}

void product(const char* op, const char* what, std::initializer_list<int64_t> factors) {
  constexpr int64_t kMost = int64_t{1} << 47;
  int64_t result = 1;
  for (const int64_t given : factors) {
    const int64_t factor = std::max<int64_t>(given, 1);
    if (factor > kMost / result) {
      std::ostringstream sizes;
      for (const int64_t each : factors) sizes << (sizes.tellp() > 0 ? " x " : "") << each;
      TORCH_CHECK_VALUE(false, op, ": ", what, ": expected fewer than 2^47 elements, got ", sizes.str());
    }
    result *= factor;
  }
}

void mask(const char* op, const char* name, int64_t value, size_t count) {
  const uint64_t bits = static_cast<uint64_t>(value);
  TORCH_CHECK_VALUE(count <= 64, op, ": inputs: expected at most 64, got ", count);
  TORCH_CHECK_VALUE(count == 64 || bits >> count == 0, op, ": ", name, ": expected a mask of the ", count,
                    " inputs, got ", value);
}

int64_t count_bits(int64_t value) { return std::popcount(static_cast<uint64_t>(value)); }

void updated(const char* op, at::ArrayRef<Target> targets, at::ArrayRef<Target> sources) {
  for (const at::ArrayRef<Target> all : {targets, sources}) {
    for (const Target& each : all)
      TORCH_CHECK_VALUE(
          !each.tensor->defined() || !(each.tensor->is_neg() || each.tensor->is_conj()), op, ": ",
          label(each.name, each.index),
          ": expected numbers as they lie in memory, got a tensor that is negated or conjugated "
          "when it is read; pass it through .resolve_neg() or .resolve_conj()");
  }
  std::vector<Span> spans;
  spans.reserve(targets.size());
  for (const Target& target : targets) {
    const at::Tensor& tensor = *target.tensor;
    TORCH_CHECK_VALUE(!tensor.requires_grad() || !at::GradMode::is_enabled(), op, ": ",
                      label(target.name, target.index),
                      ": expected a tensor without gradient, as it is updated in place; detach it or call "
                      "under torch.no_grad()");
    TORCH_CHECK_VALUE(!overlaps_itself(tensor), op, ": ", label(target.name, target.index),
                      ": expected memory for each element, as it is updated in place, got strides ",
                      Shape{tensor.strides()}, " for the shape ", Shape{tensor.sizes()});
    if (tensor.numel() > 0) spans.push_back(span_of(target));
  }
  const auto shared = [&](const Target& target, const Target& other) {
    TORCH_CHECK_VALUE(false, op, ": ", label(target.name, target.index),
                      ": expected memory of its own, as it is updated in place, got some of ",
                      label(other.name, other.index));
  };
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < spans.size(); ++i)
    if (spans[i].begin < spans[i - 1].end) shared(*spans[i].target, *spans[i - 1].target);
  for (const Target& source : sources) {
    if (!source.tensor->defined() || source.tensor->numel() == 0) continue;
    const Span span = span_of(source);
    for (const Span& target : spans)
      if (span.begin < target.end && target.begin < span.end) shared(*target.target, source);
  }
}

}  // namespace pynas::check
