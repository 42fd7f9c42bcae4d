#include "ops/avg_pool2d/avg_pool2d.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "bindings/tensor.h"
#include "ops/avg_pool2d/avg_pool2d_api.h"

namespace pynas {
namespace {

struct Window {
  int64_t kernel, stride, padding;
};

// The tables of one axis; see avg_pool2d.h for their meaning.
class Axis {
 public:
  Axis(int64_t size, Window window, bool count_include_pad, bool backward)
      : outputs_((size + 2 * window.padding - window.kernel) / window.stride + 1) {
    std::vector<float> share;
    for (int64_t i = 0; i < outputs_; ++i) {
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
      while (low < outputs_ && end_[low] <= h) ++low;
      while (high < outputs_ && begin_[high] <= h) ++high;
      from[h] = low;
      to[h] = std::max(low, high);
    }
    begin_ = from;
    end_ = to;
    before_ = share;
    after_.assign(size, 1.0f);
  }

  int64_t outputs() const { return outputs_; }
  PoolAxis view() const {
    return {static_cast<int64_t>(before_.size()),
            static_cast<int64_t>(after_.size()),
            begin_.data(),
            end_.data(),
            before_.data(),
            after_.data()};
  }

 private:
  int64_t outputs_;
  std::vector<int64_t> begin_, end_;
  std::vector<float> before_, after_;
};

Axis axis_of(const at::Tensor& image, int axis, at::IntArrayRef kernel, at::IntArrayRef stride,
             at::IntArrayRef padding, bool count_include_pad, bool backward, const char* op) {
  TORCH_CHECK_VALUE(
      kernel[axis] >= 1 && stride[axis] >= 1 && padding[axis] >= 0 && 2 * padding[axis] <= kernel[axis], op,
      ": expected kernel_size >= 1, stride >= 1 and 0 <= padding <= kernel_size / 2, got ", kernel, ", ",
      stride, ", ", padding);
  const int64_t size = image.size(2 + axis);
  TORCH_CHECK_VALUE(size + 2 * padding[axis] >= kernel[axis], op, ": kernel_size ", kernel,
                    " is larger than the padded image ", image.sizes());
  return {size, {kernel[axis], stride[axis], padding[axis]}, count_include_pad, backward};
}

void check_image(const at::Tensor& x, const char* op, const char* name) {
  TORCH_CHECK_VALUE(x.dim() == 4, op, ": ", name, ": expected [N, C, H, W], got ", x.sizes());
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, op, ": ", name,
                   ": expected float32 or bfloat16, got ", x.scalar_type());
}

at::Tensor pool(const at::Tensor& in, const Axis& rows, const Axis& cols) {
  const Parallel parallel = torch_parallel();
  AvgPool2dParams params;
  params.rows = rows.view();
  params.cols = cols.view();
  params.batch = in.size(0);
  params.channels = in.size(1);
  params.dtype = in.scalar_type() == at::kFloat ? DType::kFloat32 : DType::kBFloat16;
  at::Tensor out = at::empty({params.batch, params.channels, params.rows.out_size, params.cols.out_size},
                             in.options().memory_format(at::MemoryFormat::ChannelsLast));
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
  const Axis rows = axis_of(input, 0, kernel_size, stride, padding, count_include_pad, true, kOp);
  const Axis cols = axis_of(input, 1, kernel_size, stride, padding, count_include_pad, true, kOp);
  const int64_t expected[] = {input.size(0), input.size(1), rows.outputs(), cols.outputs()};
  TORCH_CHECK_VALUE(grad_output.sizes() == at::IntArrayRef(expected), kOp, ": grad_output: expected ",
                    at::IntArrayRef(expected), ", got ", grad_output.sizes());
  return pool(grad_output.contiguous(at::MemoryFormat::ChannelsLast), rows, cols);
}

}  // namespace

at::Tensor avg_pool2d_torch(const at::Tensor& input, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                            at::IntArrayRef padding, bool count_include_pad) {
  constexpr const char* kOp = "avg_pool2d";
  check_image(input, kOp, "input");
  const Axis rows = axis_of(input, 0, kernel_size, stride, padding, count_include_pad, false, kOp);
  const Axis cols = axis_of(input, 1, kernel_size, stride, padding, count_include_pad, false, kOp);
  return pool(input.contiguous(at::MemoryFormat::ChannelsLast), rows, cols);
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
// CPU only: PyTorch's channels_last kernel is scalar there; on a GPU its own is memory-bound already.
TORCH_LIBRARY_IMPL(pynas, CPU, m) {
  m.impl("avg_pool2d", &avg_pool2d_torch);
  m.impl("avg_pool2d_backward", &avg_pool2d_backward_torch);
}

}  // namespace pynas
