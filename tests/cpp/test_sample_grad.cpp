// sample_grad against loops in double precision.
#include <cctype>

#include "buffers.h"
#include "kernels.h"
#include "ops/sample_grad/sample_grad.h"

namespace {

using check::Buffer;
using pynas::DType;
using pynas::SampleGradParams;
using pynas::SampleGradSink;

struct Problem {
  int batch = 2, group_size = 1, in = 3, out = 5, groups = 1, height = 5, width = 4;
  int kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1};
  bool channels_last = false, bias = true, allow_tf32 = false;
  double common = 0;  // mean of all values, whose spread is then a hundredth
  DType dtype = DType::kFloat32;
  uint32_t moments = pynas::kMomentAll;

  int out_height() const {
    return (height + 2 * padding[0] - dilation[0] * (kernel[0] - 1) - 1) / stride[0] + 1;
  }
  int out_width() const {
    return (width + 2 * padding[1] - dilation[1] * (kernel[1] - 1) - 1) / stride[1] + 1;
  }
  int sample_groups() const { return batch / group_size; }
  int columns() const { return in / groups * kernel[0] * kernel[1]; }
  int weights() const { return out * columns(); }
};

void set_strides(int64_t (&strides)[4], int channels, int height, int width, bool channels_last) {
  const int64_t nchw[4] = {int64_t{channels} * height * width, int64_t{height} * width, width, 1};
  const int64_t nhwc[4] = {int64_t{channels} * height * width, 1, int64_t{width} * channels, channels};
  std::memcpy(strides, channels_last ? nhwc : nchw, sizeof nchw);
}

struct Tensor {
  std::vector<double> values;  // [batch][channel][row][column]
  Buffer data;
  int64_t strides[4];
  int channels, height, width;

  Tensor(const Problem& p, int batch, int channels, int height, int width, unsigned seed)
      : values(check::random_values(size_t(batch) * channels * height * width, seed)),
        data(values.size() * check::dtype_bytes(p.dtype)),
        channels(channels),
        height(height),
        width(width) {
    set_strides(strides, channels, height, width, p.channels_last);
    size_t i = 0;
    for (int b = 0; b < batch; ++b)
      for (int c = 0; c < channels; ++c)
        for (int y = 0; y < height; ++y)
          for (int x = 0; x < width; ++x, ++i) {
            values[i] = check::round_to(p.dtype, p.common == 0 ? values[i] : p.common + values[i] / 100);
            const int64_t at = b * strides[0] + c * strides[1] + y * strides[2] + x * strides[3];
            check::store(p.dtype, data.data(), size_t(at), values[i]);
          }
  }
  double at(int b, int c, int y, int x) const {
    return values[((size_t(b) * channels + c) * height + y) * width + x];
  }
};

// Gradients [sample_groups][weights + out], the bias behind the weights, and the same sums of absolute
// values.
struct Reference {
  std::vector<double> gradient, scale;
  size_t stride;

  Reference(const Problem& p, const Tensor& delta, const Tensor& input)
      : stride(size_t(p.weights()) + p.out) {
    gradient.assign(size_t(p.sample_groups()) * stride, 0);
    scale = gradient;
    const int group_in = p.in / p.groups, group_out = p.out / p.groups;
    for (int b = 0; b < p.batch; ++b)
      for (int o = 0; o < p.out; ++o)
        for (int y = 0; y < p.out_height(); ++y)
          for (int x = 0; x < p.out_width(); ++x) {
            const double d = delta.at(b, o, y, x);
            const size_t row = size_t(b / p.group_size) * stride;
            gradient[row + p.weights() + o] += d;
            scale[row + p.weights() + o] += std::fabs(d);
            size_t w = row + size_t(o) * p.columns();
            for (int c = 0; c < group_in; ++c)
              for (int r = 0; r < p.kernel[0]; ++r)
                for (int s = 0; s < p.kernel[1]; ++s, ++w) {
                  const int iy = y * p.stride[0] + r * p.dilation[0] - p.padding[0];
                  const int ix = x * p.stride[1] + s * p.dilation[1] - p.padding[1];
                  if (iy < 0 || iy >= p.height || ix < 0 || ix >= p.width) continue;
                  const double a = input.at(b, o / group_out * group_in + c, iy, ix);
                  gradient[w] += d * a;
                  scale[w] += std::fabs(d * a);
                }
          }
  }
};

double moment(const Problem& p, const Reference& reference, size_t element, unsigned bit, double& scale) {
  const int n = p.sample_groups();
  double mean = 0, sum = 0, widest = 0;
  for (int g = 0; g < n; ++g) {
    mean += reference.gradient[size_t(g) * reference.stride + element] / n;
    widest = std::fmax(widest, reference.scale[size_t(g) * reference.stride + element]);
  }
  for (int g = 0; g < n; ++g) {
    const double v = reference.gradient[size_t(g) * reference.stride + element];
    if (bit == pynas::kMomentSum) sum += v;
    if (bit == pynas::kMomentAbs) sum += std::fabs(v);
    if (bit == pynas::kMomentSquare) sum += v * v;
    if (bit == pynas::kMomentSign) sum += (v > 0) - (v < 0);
    if (bit == pynas::kMomentCentered) sum += (v - mean) * (v - mean);
  }
  const bool squared = bit == pynas::kMomentSquare || bit == pynas::kMomentCentered;
  scale = squared ? n * widest * widest : n * widest;
  // Samples that hardly differ: 2e-3 of the spread itself, which E[g^2] - E[g]^2 misses by far in float32.
  if (p.common != 0 && bit == pynas::kMomentCentered) scale = 700 * sum;
  return sum;
}

SampleGradParams make_params(const Problem& p, const Tensor& delta, const Tensor& input,
                             SampleGradSink sink) {
  SampleGradParams params;
  params.grad_output = delta.data.data();
  params.input = input.data.data();
  params.dtype = p.dtype;
  params.sink = sink;
  params.moments = p.moments;
  params.with_bias = p.bias;
  params.allow_tf32 = p.allow_tf32;
  params.batch = p.batch;
  params.group_size = p.group_size;
  params.in_channels = p.in;
  params.out_channels = p.out;
  params.groups = p.groups;
  params.height = p.height;
  params.width = p.width;
  params.out_height = p.out_height();
  params.out_width = p.out_width();
  for (int i = 0; i < 2; ++i) {
    params.kernel[i] = p.kernel[i];
    params.stride[i] = p.stride[i];
    params.padding[i] = p.padding[i];
    params.dilation[i] = p.dilation[i];
  }
  std::memcpy(params.grad_output_strides, delta.strides, sizeof delta.strides);
  std::memcpy(params.input_strides, input.strides, sizeof input.strides);
  return params;
}

void run(SampleGradParams params, const Buffer& weight, const Buffer& bias) {
  size_t bytes = 0;
#if defined(PYNAS_ISA_NS)
  kernels::sample_grad_workspace(params, check::kWhere.threads, bytes);
#else
  kernels::sample_grad_workspace(params, bytes);
#endif
  void* workspace = std::aligned_alloc(256, bytes + 256 - bytes % 256);
  std::memset(workspace, 0xFF, bytes);
  params.workspace = workspace;
  params.weight = weight.data();
  params.bias = bias.data();
  kernels::sample_grad(params, check::kWhere);
  std::free(workspace);
}

void check_moments(const Problem& p, const Tensor& delta, const Tensor& input, const Reference& reference) {
  const size_t k = size_t(pynas::count_moments(p.moments)), element = p.dtype == DType::kFloat64 ? 8 : 4;
  const Buffer weight(k * p.weights() * element), bias(k * p.out * element);
  run(make_params(p, delta, input, SampleGradSink::kMoments), weight, bias);
  for (size_t e = 0; e < reference.stride; ++e) {
    const bool is_bias = e >= size_t(p.weights());
    if (is_bias && !p.bias) break;
    size_t row = 0;
    for (unsigned bit = 1; bit < pynas::kMomentAll; bit *= 2) {
      if ((p.moments & bit) == 0) continue;
      double scale;
      const double want = moment(p, reference, e, bit, scale);
      const size_t at = is_bias ? row * p.out + e - p.weights() : row * p.weights() + e;
      const double got = check::result(is_bias ? bias : weight, p.dtype, at);
      const double loose = p.allow_tf32 ? 400 : 1;
      check::expect_close(
          "moment " + std::to_string(bit) + (is_bias ? " of bias" : " of weight ") + std::to_string(e), got,
          want, check::tolerance(p.dtype, scale) * loose);
      ++row;
    }
  }
}

void check_products(const Problem& p, const Tensor& delta, const Tensor& input, const Reference& reference,
                    SampleGradSink sink) {
  const size_t n = size_t(p.sample_groups()), element = p.dtype == DType::kFloat64 ? 8 : 4;
  const bool gram = sink == SampleGradSink::kGram;
  const size_t terms = p.bias ? reference.stride : size_t(p.weights());
  const Buffer out((gram ? n * n : n) * element), none(0);
  run(make_params(p, delta, input, sink), out, none);
  for (size_t g = 0; g < n; ++g)
    for (size_t h = gram ? 0 : g; h < (gram ? n : g + 1); ++h) {
      double want = 0, scale = 0;
      for (size_t e = 0; e < terms; ++e) {
        want += reference.gradient[g * reference.stride + e] * reference.gradient[h * reference.stride + e];
        scale += reference.scale[g * reference.stride + e] * reference.scale[h * reference.stride + e];
      }
      const double got = check::result(out, p.dtype, gram ? g * n + h : g);
      const double loose = p.allow_tf32 ? 400 : 1;
      check::expect_close(gram ? "gram" : "norm", got, want, check::tolerance(p.dtype, scale) * loose);
    }
}

void check_all(const Problem& p, bool products = true) {
  const Tensor delta(p, p.batch, p.out, p.out_height(), p.out_width(), 1);
  const Tensor input(p, p.batch, p.in, p.height, p.width, 2);
  const Reference reference(p, delta, input);
  check_moments(p, delta, input, reference);
  if (!products) return;
  check_products(p, delta, input, reference, SampleGradSink::kNorms);
  check_products(p, delta, input, reference, SampleGradSink::kGram);
}

Problem conv3x3(DType dtype) {
  Problem p;
  p.dtype = dtype;
  p.batch = 3;
  p.in = 3;
  p.out = 5;
  p.height = 5;
  p.width = 7;
  p.kernel[0] = p.kernel[1] = 3;
  p.padding[0] = p.padding[1] = 1;
  return p;
}

}  // namespace

CASE(sample_grad_conv_float32) { check_all(conv3x3(DType::kFloat32)); }
CASE(sample_grad_conv_tf32) {
  Problem p = conv3x3(DType::kFloat32);
  p.allow_tf32 = true;
  p.moments = pynas::kMomentSum | pynas::kMomentSquare;
  check_all(p);
}
CASE(sample_grad_conv_bfloat16) { check_all(conv3x3(DType::kBFloat16)); }
CASE(sample_grad_conv_float16) { check_all(conv3x3(DType::kFloat16)); }
CASE(sample_grad_conv_float64) { check_all(conv3x3(DType::kFloat64)); }

CASE(sample_grad_strided_dilated) {
  Problem p = conv3x3(DType::kBFloat16);
  p.height = 9;
  p.width = 8;
  p.kernel[0] = 2;
  p.stride[0] = 2;
  p.stride[1] = 1;
  p.padding[0] = 0;
  p.padding[1] = 2;
  p.dilation[0] = 2;
  p.dilation[1] = 3;
  p.batch = 4;
  p.group_size = 2;
  p.moments = pynas::kMomentAbs | pynas::kMomentCentered;
  check_all(p);
}

// Aligned channels-last tensors are read in place; 72 output channels and 8 x 9 columns end inside a second
// tile.
CASE(sample_grad_channels_last) {
  Problem p = conv3x3(DType::kBFloat16);
  p.in = 8;
  p.out = 72;
  p.batch = 2;
  p.height = p.width = 3;
  p.channels_last = true;
  p.bias = false;
  check_all(p);
}

// Two tile groups of a grouped convolution: 8 x 16 x 9 weights each are past the thin limit.
CASE(sample_grad_grouped_tiles) {
  Problem p = conv3x3(DType::kFloat32);
  p.in = 30;
  p.out = 16;
  p.groups = 2;
  p.height = p.width = 3;
  p.batch = 2;
  p.moments = pynas::kMomentSum | pynas::kMomentAbs | pynas::kMomentSign;
  check_all(p, false);
}

CASE(sample_grad_depthwise) {
  Problem p = conv3x3(DType::kFloat32);
  p.in = p.out = p.groups = 33;
  p.stride[0] = p.stride[1] = 2;
  check_all(p);
}
CASE(sample_grad_thin_groups_channels_last) {
  Problem p = conv3x3(DType::kBFloat16);
  p.in = 6;
  p.out = 9;
  p.groups = 3;
  p.channels_last = true;
  p.batch = 4;
  p.group_size = 2;
  check_all(p);
}

// Few groups of many rows: row splits, through raw gradients.
CASE(sample_grad_row_splits) {
  Problem p = conv3x3(DType::kBFloat16);
  p.batch = 4;
  p.group_size = 2;
  p.height = 12;
  p.width = 11;
  check_all(p, false);
  p.moments = pynas::kMomentCentered;
  p.kernel[0] = p.kernel[1] = 1;
  p.padding[0] = p.padding[1] = 0;
  check_all(p, false);
}

// A linear layer over T positions; more groups than blocks would have, one position a group.
CASE(sample_grad_linear) {
  Problem p;
  p.dtype = DType::kFloat32;
  p.batch = 37;
  p.in = 17;
  p.out = 10;
  p.height = p.width = 1;
  p.channels_last = true;
  check_all(p);
}
CASE(sample_grad_linear_positions) {
  Problem p;
  p.dtype = DType::kFloat16;
  p.batch = 4;
  p.group_size = 2;
  p.in = 65;
  p.out = 3;
  p.height = 1;
  p.width = 33;
  p.channels_last = true;
  check_all(p, false);
}

CASE(sample_grad_similar_samples) {
  Problem p = conv3x3(DType::kFloat32);
  p.batch = 11;
  p.common = 1;
  p.moments = pynas::kMomentCentered;
  check_all(p, false);
}
CASE(sample_grad_one_of_everything) {
  Problem p;
  p.batch = p.in = p.out = p.height = p.width = 1;
  check_all(p);
}
CASE(sample_grad_empty) {
  Problem p = conv3x3(DType::kFloat32);
  p.batch = 0;
  check_all(p);
  p.batch = 2;
  p.in = 0;
  check_all(p);
  p.in = 3;
  p.out = 0;
  check_all(p);
  p.out = 2;
  p.width = 0;  // no output positions: zero gradients
  p.padding[1] = 1;
  check_all(p);
}
