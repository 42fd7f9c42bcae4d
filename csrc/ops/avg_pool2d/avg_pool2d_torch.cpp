#include "ops/avg_pool2d/avg_pool2d.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "bindings/tensor.h"
#include "ops/avg_pool2d/avg_pool2d_api.h"

namespace pynas {
namespace avg_pool2d_binding {
namespace {

struct Window {
  int64_t size, kernel, stride, padding;  // of one axis, size that of the image
  int64_t outputs() const { return (size + 2 * padding - kernel) / stride + 1; }
};

// The tables of one axis; see avg_pool2d.h for their meaning.
class Axis {
 public:
  Axis(const Window& window, bool count_include_pad, bool backward) {
    const int64_t size = window.size, outputs = window.outputs();
    std::vector<float> share;
    for (int64_t i = 0; i < outputs; ++i) {
      const int64_t first = i * window.stride - window.padding, last = first + window.kernel;
      begin_.push_back(std::max<int64_t>(first, 0));
      end_.push_back(std::max(begin_.back(), std::min(last, size)));
      const int64_t counted =
          count_include_pad ? std::min(last, size + window.padding) - first : end_.back() - begin_.back();
      share.push_back(counted > 0 ? 1.0f / static_cast<float>(counted) : 0.0f);
    }
    if (!backward) {
      before_.assign(size, 1.0f);
      after_ = share;
      return;
    }
    // Windows move to the right with i, so the outputs that hold row h are a range: from the first whose end
    // is beyond h.
    std::vector<int64_t> from(size), to(size);
    for (int64_t h = 0, low = 0, high = 0; h < size; ++h) {
      while (low < outputs && end_[low] <= h) ++low;
      while (high < outputs && begin_[high] <= h) ++high;
      from[h] = low;
      to[h] = std::max(low, high);
    }
    begin_ = from;
    end_ = to;
    before_ = share;
    after_.assign(size, 1.0f);
  }

  PoolAxis view() const {
    return {static_cast<int64_t>(before_.size()),
            static_cast<int64_t>(after_.size()),
            begin_.data(),
            end_.data(),
            before_.data(),
            after_.data()};
  }

 private:
  std::vector<int64_t> begin_, end_;
  std::vector<float> before_, after_;
};

Window window_of(const at::Tensor& image, int axis, at::IntArrayRef kernel, at::IntArrayRef stride,
                 at::IntArrayRef padding, const char* op) {
  check::pair(op, "kernel_size", kernel, 1);
  check::pair(op, "stride", stride, 1);
  check::pair(op, "padding", padding, 0);
  TORCH_CHECK_VALUE(2 * padding[axis] <= kernel[axis], op,
                    ": padding: expected at most half of kernel_size (padding <= kernel_size / 2), ", kernel,
                    ", got ", padding);
  const int64_t size = image.size(2 + axis);
  TORCH_CHECK_VALUE(size + 2 * padding[axis] >= kernel[axis], op, ": kernel_size ", kernel,
                    " is larger than the padded image ", image.sizes());
  return {size, kernel[axis], stride[axis], padding[axis]};
}

void check_image(const at::Tensor& x, const char* op, const char* name) {
  TORCH_CHECK_VALUE(x.dim() == 4, op, ": ", name, ": expected [N, C, H, W], got ", x.sizes());
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, op, ": ", name,
                   ": expected float32 or bfloat16, got ", x.scalar_type());
}

// The means of the windows of an image, or (backward) the image's gradient from that of the means. rows and
// cols: the windows along both axes of the image.
at::Tensor pool(const at::Tensor& image, const Window& rows, const Window& cols, bool count_include_pad,
                bool backward) {
  const at::Tensor in = image.contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor out = at::empty(
      {in.size(0), in.size(1), backward ? rows.size : rows.outputs(), backward ? cols.size : cols.outputs()},
      in.options().memory_format(at::MemoryFormat::ChannelsLast));
  if (out.numel() == 0) return out;
  const Parallel parallel = torch_parallel();
  const Axis row_tables(rows, count_include_pad, backward), col_tables(cols, count_include_pad, backward);
  AvgPool2dParams params;
  params.rows = row_tables.view();
  params.cols = col_tables.view();
  params.batch = in.size(0);
  params.channels = in.size(1);
  params.dtype = in.scalar_type() == at::kFloat ? DType::kFloat32 : DType::kBFloat16;
  at::Tensor workspace =
      at::empty({parallel.threads * params.cols.in_size * params.channels}, in.options().dtype(at::kFloat));
  params.in = in.const_data_ptr();
  params.out = out.mutable_data_ptr();
  params.workspace = workspace.mutable_data_ptr<float>();
  PYNAS_DISPATCH_ISA(avg_pool2d, params, parallel);
  return out;
}

at::Tensor avg_pool2d_backward_torch(const at::Tensor& grad_output, const at::Tensor& input,
                                     at::IntArrayRef kernel_size, at::IntArrayRef stride,
                                     at::IntArrayRef padding, bool count_include_pad) {
  constexpr const char* kOp = "avg_pool2d_backward";
  check_image(grad_output, kOp, "grad_output");
  check_image(input, kOp, "input");
  const Window rows = window_of(input, 0, kernel_size, stride, padding, kOp);
  const Window cols = window_of(input, 1, kernel_size, stride, padding, kOp);
  const int64_t expected[] = {input.size(0), input.size(1), rows.outputs(), cols.outputs()};
  TORCH_CHECK_VALUE(grad_output.sizes() == at::IntArrayRef(expected), kOp, ": grad_output: expected ",
                    at::IntArrayRef(expected), ", got ", grad_output.sizes());
  return pool(grad_output, rows, cols, count_include_pad, true);
}

}  // namespace
}  // namespace avg_pool2d_binding

at::Tensor avg_pool2d_torch(const at::Tensor& input, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                            at::IntArrayRef padding, bool count_include_pad) {
  using namespace avg_pool2d_binding;
  constexpr const char* kOp = "avg_pool2d";
  check_image(input, kOp, "input");
  const Window rows = window_of(input, 0, kernel_size, stride, padding, kOp);
  const Window cols = window_of(input, 1, kernel_size, stride, padding, kOp);
  return pool(input, rows, cols, count_include_pad, false);
}

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.avg_pool2d");
  m.def(
      "avg_pool2d(Tensor input, int[2] kernel_size, int[2] stride, int[2] padding, bool count_include_pad) "
      "-> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "avg_pool2d_backward(Tensor grad_output, Tensor input, int[2] kernel_size, int[2] stride, int[2] "
      "padding, "
      "bool count_include_pad) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}
// CPU only: PyTorch's channels_last kernel is scalar on the CPU, and memory-bound already on a GPU.
PYNAS_REGISTER_CPU(avg_pool2d, avg_pool2d_torch)
PYNAS_REGISTER_CPU(avg_pool2d_backward, avg_pool2d_binding::avg_pool2d_backward_torch)

}  // namespace pynas
