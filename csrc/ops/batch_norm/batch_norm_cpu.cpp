#include "ops/batch_norm/batch_norm.h"

#include <cmath>

#include "common/math.h"
#include "common/simd_convert.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

using V = Vec<float>;
constexpr int kL = kLanes<float>;
constexpr int64_t kChunk = 256;  // rows whose statistics are kept in float32 before they go to float64

// Two sums over rows [begin, end) of one vector of channels: terms(m, first, second) adds those of row m.
// Rows are taken four at a time, so that four sums of each kind hide the latency of the additions.
template <class Terms>
PYNAS_INLINE void sum_rows(int64_t begin, int64_t end, Terms terms, V& first, V& second) {
  V a[4] = {}, b[4] = {};
  int64_t m = begin;
  for (; m + 4 <= end; m += 4) PYNAS_UNROLL for (int i = 0; i < 4; ++i) terms(m + i, a[i], b[i]);
  for (; m < end; ++m) terms(m, a[0], b[0]);
  first = (a[0] + a[1]) + (a[2] + a[3]);
  second = (b[0] + b[1]) + (b[2] + b[3]);
}

// Calls body(channel, lanes) for every vector of channels.
template <class F>
PYNAS_INLINE void for_channels(int64_t channels, F body) {
  for (int64_t c = 0; c < channels; c += kL) body(c, static_cast<int>(least(kL, channels - c)));
}

// Mean and sum of squared deviations of rows [begin, end) into state [2, channels]:
// shifted sums inside a chunk (the shift is the chunk's first row, so there is little to
// cancel), chunks merged by Chan's formula in float64.
template <class T>
void chunk_moments(const BatchNormParams& p, int64_t begin, int64_t end, double* state) {
  const T* x = static_cast<const T*>(p.x);
  const int64_t C = p.channels;
  for (int64_t c = 0; c < 2 * C; ++c) state[c] = 0.0;
  for (int64_t from = begin; from < end; from += kChunk) {
    const int64_t to = least(from + kChunk, end);
    const double n = static_cast<double>(to - from), seen = static_cast<double>(from - begin);
    for_channels(C, [&](int64_t c, int lanes) {
      const V shift = load_lanes(x + from * C + c, lanes);
      V sum, square;
      sum_rows(
          from, to,
          [&](int64_t m, V& a, V& b) {
            const V d = load_lanes(x + m * C + c, lanes) - shift;
            a += d;
            b += d * d;
          },
          sum, square);
      for (int i = 0; i < lanes; ++i) {
        const double mean = static_cast<double>(sum[i]) / n;
        const double m2 = static_cast<double>(square[i]) - mean * static_cast<double>(sum[i]);
        const double delta = mean + static_cast<double>(shift[i]) - state[c + i];
        state[c + i] += delta * n / (seen + n);
        state[C + c + i] += (m2 > 0.0 ? m2 : 0.0) + delta * delta * seen * n / (seen + n);
      }
    });
  }
}

// out = scale_c x + offset_c, and in backward + slope_c g; coefficients [2 or 3, channels] in this order.
template <class T, bool kBackward>
void apply(const BatchNormParams& p, const float* coefficients, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(p.x);
  const T* g = static_cast<const T*>(p.grad_output);
  T* out = static_cast<T*>(p.out);
  const int64_t C = p.channels;
  for_channels(C, [&](int64_t c, int lanes) {
    const V scale = load_lanes(coefficients + c, lanes), offset = load_lanes(coefficients + C + c, lanes);
    const V slope = kBackward ? load_lanes(coefficients + 2 * C + c, lanes) : V{};
    for (int64_t m = begin; m < end; ++m) {
      V y = scale * load_lanes(x + m * C + c, lanes) + offset;
      if constexpr (kBackward) y += slope * load_lanes(g + m * C + c, lanes);
      store_lanes(out + m * C + c, y, lanes);
    }
  });
}

// The first row of thread t: the same in both passes, so that a thread finds its rows in its own cache again.
PYNAS_INLINE int64_t split(int64_t rows, int threads, int64_t t) {
  const int64_t blocks = ceil_div(rows, kChunk);
  return least(rows, blocks * t / threads * kChunk);
}

template <class T, bool kBackward>
void apply_all(const BatchNormParams& p, const float* coefficients, const Parallel& parallel) {
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      const int64_t end = split(p.rows, parallel.threads, t + 1);
      // Block by block, all channels of a block before the next: rows are read and written in order.
      for (int64_t m = split(p.rows, parallel.threads, t); m < end; m += 64)
        apply<T, kBackward>(p, coefficients, m, least(m + 64, end));
    }
  });
}

template <class T>
void forward(const BatchNormParams& p, float* coefficients, const Parallel& parallel) {
  const int64_t C = p.channels;
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t)
      chunk_moments<T>(p, split(p.rows, parallel.threads, t), split(p.rows, parallel.threads, t + 1),
                       p.workspace + t * 2 * C);
  });
  for (int64_t c = 0; c < C; ++c) {
    double mean = 0.0, m2 = 0.0, seen = 0.0;
    for (int t = 0; t < parallel.threads; ++t) {
      const double n =
          static_cast<double>(split(p.rows, parallel.threads, t + 1) - split(p.rows, parallel.threads, t));
      if (n == 0.0) continue;
      const double delta = p.workspace[t * 2 * C + c] - mean;
      m2 += p.workspace[(t * 2 + 1) * C + c] + delta * delta * seen * n / (seen + n);
      mean += delta * n / (seen + n);
      seen += n;
    }
    const double rstd = 1.0 / std::sqrt(m2 / seen + p.eps);
    p.mean[c] = static_cast<float>(mean);
    p.rstd[c] = static_cast<float>(rstd);
    const double scale = (p.weight ? static_cast<double>(p.weight[c]) : 1.0) * rstd;
    coefficients[c] = static_cast<float>(scale);
    coefficients[C + c] = static_cast<float>((p.bias ? static_cast<double>(p.bias[c]) : 0.0) - mean * scale);
  }
  apply_all<T, false>(p, coefficients, parallel);
}

template <class T>
void backward(const BatchNormParams& p, float* coefficients, const Parallel& parallel) {
  const int64_t C = p.channels;
  const T* x = static_cast<const T*>(p.x);
  const T* g = static_cast<const T*>(p.grad_output);
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      double* state = p.workspace + t * 2 * C;
      for (int64_t c = 0; c < 2 * C; ++c) state[c] = 0.0;
      const int64_t end = split(p.rows, parallel.threads, t + 1);
      for (int64_t from = split(p.rows, parallel.threads, t); from < end; from += kChunk) {
        const int64_t to = least(from + kChunk, end);
        for_channels(C, [&](int64_t c, int lanes) {
          const V mean = load_lanes(p.mean + c, lanes);
          V sum, dot;
          sum_rows(
              from, to,
              [&](int64_t m, V& a, V& b) {
                const V d = load_lanes(g + m * C + c, lanes);
                a += d;
                b += d * (load_lanes(x + m * C + c, lanes) - mean);
              },
              sum, dot);
          for (int i = 0; i < lanes; ++i) {
            state[c + i] += static_cast<double>(sum[i]);
            state[C + c + i] += static_cast<double>(dot[i]);
          }
        });
      }
    }
  });
  const double M = static_cast<double>(p.rows);
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0.0, dot = 0.0;
    for (int t = 0; t < parallel.threads; ++t) {
      sum += p.workspace[t * 2 * C + c];
      dot += p.workspace[(t * 2 + 1) * C + c];
    }
    const double rstd = static_cast<double>(p.rstd[c]), mean = static_cast<double>(p.mean[c]);
    const double slope = (p.weight ? static_cast<double>(p.weight[c]) : 1.0) * rstd;
    const double scale = -slope * rstd * rstd * dot / M;
    coefficients[c] = static_cast<float>(scale);
    coefficients[C + c] = static_cast<float>(-slope * sum / M - scale * mean);
    coefficients[2 * C + c] = static_cast<float>(slope);
  }
  apply_all<T, true>(p, coefficients, parallel);
}

// Sums over rows of a, a d, g, g d and a g with d = x - mean, into state [5, channels].
template <class T>
void second_order_sums(const BatchNormParams& p, int64_t begin, int64_t end, double* state) {
  const T* x = static_cast<const T*>(p.x);
  const T* g = static_cast<const T*>(p.grad_output);
  const T* a = static_cast<const T*>(p.adjoint);
  const int64_t C = p.channels;
  for (int64_t c = 0; c < 5 * C; ++c) state[c] = 0.0;
  for (int64_t from = begin; from < end; from += kChunk) {
    const int64_t to = least(from + kChunk, end);
    for_channels(C, [&](int64_t c, int lanes) {
      const V mean = load_lanes(p.mean + c, lanes);
      V sums[5] = {};
      for (int64_t m = from; m < to; ++m) {
        const V am = load_lanes(a + m * C + c, lanes), gm = load_lanes(g + m * C + c, lanes);
        const V d = load_lanes(x + m * C + c, lanes) - mean;
        sums[0] += am;
        sums[1] += am * d;
        sums[2] += gm;
        sums[3] += gm * d;
        sums[4] += am * gm;
      }
      for (int k = 0; k < 5; ++k)
        for (int i = 0; i < lanes; ++i) state[k * C + c + i] += static_cast<double>(sums[k][i]);
    });
  }
}

// coefficients k [7, channels]:
//   adjoint of x = k_0 a + k_1 g + k_2 x + k_3
//   adjoint of g = k_4 a + k_5 x + k_6
template <class T>
void apply_second_order(const BatchNormParams& p, const float* coefficients, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(p.x);
  const T* g = static_cast<const T*>(p.grad_output);
  const T* a = static_cast<const T*>(p.adjoint);
  T* out_x = static_cast<T*>(p.out);
  T* out_g = static_cast<T*>(p.out_grad);
  const int64_t C = p.channels;
  for_channels(C, [&](int64_t c, int lanes) {
    V k[7];
    for (int i = 0; i < 7; ++i) k[i] = load_lanes(coefficients + i * C + c, lanes);
    for (int64_t m = begin; m < end; ++m) {
      const V am = load_lanes(a + m * C + c, lanes), xm = load_lanes(x + m * C + c, lanes);
      const V gm = load_lanes(g + m * C + c, lanes);
      store_lanes(out_x + m * C + c, k[0] * am + k[1] * gm + (k[2] * xm + k[3]), lanes);
      store_lanes(out_g + m * C + c, k[4] * am + (k[5] * xm + k[6]), lanes);
    }
  });
}

template <class T>
void double_backward(const BatchNormParams& p, float* coefficients, const Parallel& parallel) {
  const int64_t C = p.channels;
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t)
      second_order_sums<T>(p, split(p.rows, parallel.threads, t), split(p.rows, parallel.threads, t + 1),
                           p.workspace + t * 5 * C);
  });
  const double M = static_cast<double>(p.rows);
  for (int64_t c = 0; c < C; ++c) {
    double means[5] = {};
    for (int t = 0; t < parallel.threads; ++t)
      for (int k = 0; k < 5; ++k) means[k] += p.workspace[(t * 5 + k) * C + c] / M;
    const double rstd = static_cast<double>(p.rstd[c]), mean = static_cast<double>(p.mean[c]);
    const double slope = (p.weight ? static_cast<double>(p.weight[c]) : 1.0) * rstd;
    const double an = means[1] * rstd, gn = means[3] * rstd;
    const double of_x = -slope * rstd * rstd * (means[4] - means[0] * means[2] - 3.0 * an * gn);
    const double of_x_grad = -slope * rstd * an;
    const double values[7] = {-slope * rstd * gn,
                              -slope * rstd * an,
                              of_x,
                              slope * rstd * (gn * means[0] + an * means[2]) - of_x * mean,
                              slope,
                              of_x_grad,
                              -slope * means[0] - of_x_grad * mean};
    for (int k = 0; k < 7; ++k) coefficients[k * C + c] = static_cast<float>(values[k]);
  }
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      const int64_t end = split(p.rows, parallel.threads, t + 1);
      for (int64_t m = split(p.rows, parallel.threads, t); m < end; m += 64)
        apply_second_order<T>(p, coefficients, m, least(m + 64, end));
    }
  });
}

// What lies `bytes` behind p, or null like p.
template <class T>
PYNAS_INLINE T* behind(T* p, int64_t bytes) {
  return p == nullptr ? nullptr
                      : reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(p) + static_cast<uintptr_t>(bytes));
}

// Calls body(parameters, threads) for every group: all threads work on a single group,
// one thread on each of several.
template <class F>
void for_groups(const BatchNormParams& p, const Parallel& parallel, F body) {
  if (p.groups == 1) return body(p, parallel);
  const int64_t rows = p.rows / p.groups, C = p.channels;
  const int64_t bytes = rows * C * (p.dtype == DType::kBFloat16 ? 2 : 4);
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      for (int64_t g = p.groups * t / parallel.threads; g < p.groups * (t + 1) / parallel.threads; ++g) {
        BatchNormParams one = p;
        one.groups = 1;
        one.rows = rows;
        one.x = behind(p.x, g * bytes);
        one.grad_output = behind(p.grad_output, g * bytes);
        one.out = behind(p.out, g * bytes);
        one.mean = p.mean + g * C;
        one.rstd = p.rstd + g * C;
        one.workspace = p.workspace + t * 4 * C;
        body(one, Parallel{});
      }
    }
  });
}

}  // namespace

// The coefficients lie behind the threads' statistics in the workspace.
void batch_norm(const BatchNormParams& p, const Parallel& parallel) {
  for_groups(p, parallel, [](const BatchNormParams& q, const Parallel& threads) {
    float* coefficients = reinterpret_cast<float*>(q.workspace + int64_t{2} * threads.threads * q.channels);
    q.dtype == DType::kBFloat16 ? forward<BFloat16>(q, coefficients, threads)
                                : forward<float>(q, coefficients, threads);
  });
}

void batch_norm_backward(const BatchNormParams& p, const Parallel& parallel) {
  for_groups(p, parallel, [](const BatchNormParams& q, const Parallel& threads) {
    float* coefficients = reinterpret_cast<float*>(q.workspace + int64_t{2} * threads.threads * q.channels);
    q.dtype == DType::kBFloat16 ? backward<BFloat16>(q, coefficients, threads)
                                : backward<float>(q, coefficients, threads);
  });
}

void batch_norm_double_backward(const BatchNormParams& p, const Parallel& parallel) {
  float* coefficients = reinterpret_cast<float*>(p.workspace + int64_t{5} * parallel.threads * p.channels);
  p.dtype == DType::kBFloat16 ? double_backward<BFloat16>(p, coefficients, parallel)
                              : double_backward<float>(p, coefficients, parallel);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
