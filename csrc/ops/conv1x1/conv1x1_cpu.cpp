#include "ops/conv1x1/conv1x1.h"

#include "common/math.h"
#include "ops/conv3x3/products.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

// out[i, c] = f(in[i, c]) in float32, for rows of `channels` that lie `stride` apart in out.
template <bool kRelu, class T>
PYNAS_INLINE void widen_rows(const T* in, int64_t rows, int64_t channels, float* out, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    for_channels(channels, [&](int64_t c, auto lanes) {
      store(out + i * stride + c, load_pixel<kRelu>(in + i * channels + c, lanes));
    });
  }
}

template <class T>
void load_rows(const T* in, bool relu, int64_t rows, int64_t channels, float* out, int64_t stride) {
  relu ? widen_rows<true>(in, rows, channels, out, stride)
       : widen_rows<false>(in, rows, channels, out, stride);
}

template <class T>
void write_rows(const Conv1x1Params& p, const float* in, int64_t stride, int64_t first, int64_t rows) {
  const int64_t O = p.out_channels;
  T* out = static_cast<T*>(p.output) + first * O;
  const T* mask = p.mask ? static_cast<const T*>(p.mask) + first * O : nullptr;
  const T* addend = p.addend ? static_cast<const T*>(p.addend) + first * O : nullptr;
  for (int64_t i = 0; i < rows; ++i) {
    for_channels(O, [&](int64_t o, auto lanes) {
      const int64_t at = i * O + o;
      V y = load<float>(in + i * stride + o);
      if (mask != nullptr) y = load_lanes(mask + at, lanes) <= V{} ? V{} : y;
      if (addend != nullptr) y += load_lanes(addend + at, lanes);
      store_lanes(out + at, y, lanes);
    });
  }
}

// The first row of a thread; threads take whole blocks of kConv1x1Rows.
PYNAS_INLINE int64_t start_of(int64_t rows, int64_t thread, int64_t threads) {
  const int64_t blocks = ceil_div(rows, kConv1x1Rows);
  return least(rows, blocks * thread / threads * kConv1x1Rows);
}

template <class T>
void convolve(const Conv1x1Params& p, const Parallel& parallel) {
  const int64_t C = p.in_channels, O = p.out_channels;
  const int64_t Cp = padded_channels(C), Op = padded_channels(O);
  const T* weight = static_cast<const T*>(p.weight);
  float* weights = p.workspace;  // in panels
  for (int64_t o = 0; o < Op; ++o) {
    const int64_t width = panel_width(o, Op);
    float* to = panel(weights, o / kL * kL, C, Op) + o % kL;
    for (int64_t c = 0; c < C; ++c)
      to[c * width] = o < O ? to_float(weight[o * p.weight_strides[0] + c * p.weight_strides[1]]) : 0.0f;
  }
  float* scratch = weights + C * Op;
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; ++thread) {
      float* in = scratch + thread * kConv1x1Rows * (Cp + Op);
      float* out = in + kConv1x1Rows * Cp;
      const int64_t end = start_of(p.rows, thread + 1, parallel.threads);
      for (int64_t r = start_of(p.rows, thread, parallel.threads); r < end; r += kConv1x1Rows) {
        const int64_t rows = least(kConv1x1Rows, end - r);
        load_rows(static_cast<const T*>(p.input) + r * C, p.relu, rows, C, in, Cp);
        multiply(in, Cp, weights, out, Op, rows, C);
        write_rows<T>(p, out, Op, r, rows);
      }
    }
  });
}

template <class T>
void weight_gradient(const Conv1x1Params& p, const Parallel& parallel) {
  const int64_t C = p.in_channels, O = p.out_channels;
  const int64_t Cp = padded_channels(C), Op = padded_channels(O);
  const int64_t per_thread = C * Op + kConv1x1Rows * (Cp + Op);
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; ++thread) {
      float* sums = p.workspace + thread * per_thread;
      float *in = sums + C * Op, *grads = in + kConv1x1Rows * Cp;
      for (int64_t i = 0; i < C * Op; ++i) sums[i] = 0;
      const int64_t end = start_of(p.rows, thread + 1, parallel.threads);
      for (int64_t r = start_of(p.rows, thread, parallel.threads); r < end; r += kConv1x1Rows) {
        const int64_t rows = least(kConv1x1Rows, end - r);
        load_rows(static_cast<const T*>(p.input) + r * C, p.relu, rows, C, in, Cp);
        load_rows(static_cast<const T*>(p.grad_output) + r * O, false, rows, O, grads, Op);
        add_products(in, Cp, C, grads, Op, rows, sums, false);
      }
    }
  });
  for (int64_t o = 0; o < O; ++o) {
    for (int64_t c = 0; c < C; ++c) {
      float sum = 0;
      for (int64_t t = 0; t < parallel.threads; ++t) sum += p.workspace[t * per_thread + c * Op + o];
      p.grad_weight[o * C + c] = sum;
    }
  }
}

}  // namespace

void conv1x1(const Conv1x1Params& p, const Parallel& parallel) {
  p.dtype == DType::kBFloat16 ? convolve<BFloat16>(p, parallel) : convolve<float>(p, parallel);
}

void conv1x1_grad_weight(const Conv1x1Params& p, const Parallel& parallel) {
  p.dtype == DType::kBFloat16 ? weight_gradient<BFloat16>(p, parallel) : weight_gradient<float>(p, parallel);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
