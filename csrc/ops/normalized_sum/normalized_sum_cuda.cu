// The sum of batch-normalised inputs: see normalized_sum.h for the formulas. The kernels read the weights, so
// that the host need not wait for them: a block whose input has weight zero ends, a thread skips that input.
// Sums go to parts of a fixed split and are merged in order, in double: the same bits every time.
#include "common/visit.h"
#include "ops/normalized_sum/normalized_sum.h"

namespace pynas::cuda {
namespace {

using Params = NormalizedSumParams;

constexpr int kThreads = 256;
constexpr int kGroup = 4;                   // inputs that share one read of g
constexpr int64_t kTargetBlocks = 132 * 8;  // a full H100
constexpr int64_t kSplitValues = 1024;      // values of a channel that are worth a block of their own

// How values are dealt out: a block takes `width` neighbouring channels and `split_values` values of each.
struct Shape {
  int64_t channels, inner, values, split_values;
  int width, splits;
  Divider by_inner;

  __device__ int64_t at(int64_t value, int64_t c) const {
    if (inner == 1) return value * channels + c;
    const uint32_t m = static_cast<uint32_t>(value), n = by_inner.divide(m);
    return (int64_t{n} * channels + c) * inner + by_inner.remainder(m, n);
  }
};

Shape make_shape(const Params& p) {
  Shape shape{p.channels, p.inner, p.outer * p.inner, 0, 1, 1, Divider(static_cast<uint32_t>(p.inner))};
  while (p.inner == 1 && shape.width < 32 && shape.width < p.channels) shape.width *= 2;
  const int64_t blocks = max(int64_t{1}, ceil_div(p.channels, shape.width) * p.count);
  const int64_t lines = kThreads / shape.width;
  const int64_t splits =
      min(ceil_div(kTargetBlocks, blocks), ceil_div(shape.values * shape.width, kSplitValues));
  shape.split_values = ceil_div(ceil_div(shape.values, max(int64_t{1}, splits)), lines) * lines;
  shape.splits =
      static_cast<int>(max(int64_t{1}, ceil_div(shape.values, max(int64_t{1}, shape.split_values))));
  return shape;
}

__device__ inline bool normalizes(const Params& p, int k) { return (p.normalized >> k & 1u) != 0; }
template <class S>
__device__ S weight_of(const void* weights, int k) {
  return weights == nullptr ? S(1) : static_cast<const S*>(weights)[k];
}
template <class S>
__device__ double channel_value(const void* values, int64_t c, double missing) {
  return values == nullptr ? missing : static_cast<double>(static_cast<const S*>(values)[c]);
}

// (n, mean, m2) of two parts into the first, by Chan's formula.
template <class S>
__device__ void merge(S& n, S& mean, S& m2, S other_n, S other_mean, S other_m2) {
  if (other_n == 0) return;
  const S delta = other_mean - mean, share = other_n / (n + other_n);
  mean += delta * share;
  m2 += other_m2 + delta * delta * n * share;
  n += other_n;
}

// part[0] = mean and part[1] = sum of squared deviations, of one input, channel and split.
// Block: `width` channels, one split of the values, one input.
// Thread: one channel, every lines-th value.
// Roofline: K M C sizeof(T) bytes / 3.35 TB/s.
// Design: shifted sums in each thread (the shift is its first value), then a tree of merges.
template <class T>
__global__ void __launch_bounds__(kThreads) moments_kernel(Params p, Shape shape, Accumulate<T>* parts) {
  using S = Accumulate<T>;
  SHARED(S, cells, [3][kThreads]);
  const int k = static_cast<int>(blockIdx.z), column = static_cast<int>(threadIdx.x) % shape.width;
  if (!normalizes(p, k) || weight_of<S>(p.weights, k) == 0) return;
  const int line = static_cast<int>(threadIdx.x) / shape.width, lines = kThreads / shape.width;
  const int64_t c = int64_t{blockIdx.x} * shape.width + column;
  const int64_t begin = blockIdx.y * shape.split_values, end = min(begin + shape.split_values, shape.values);
  const T* z = static_cast<const T*>(p.inputs[k]);
  S n = 0, shift = 0, sum = 0, square = 0;
  for (int64_t m = begin + line; m < end && c < shape.channels; m += lines) {
    const S value = to_accumulate(z[shape.at(m, c)]);
    if (n == 0) shift = value;
    sum += value - shift;
    square += (value - shift) * (value - shift);
    n += 1;
  }
  S mean = n > 0 ? shift + sum / n : S(0);
  S m2 = n > 0 ? max(square - sum * sum / n, S(0)) : S(0);
  for (int half = lines; half > 0; half /= 2) {
    // The first round only writes; then the lower half of the lines takes in the upper one.
    if (line < half) {
      const int other = static_cast<int>(threadIdx.x) + half * shape.width;
      if (half < lines) merge(n, mean, m2, cells[0][other], cells[1][other], cells[2][other]);
      cells[0][threadIdx.x] = n;
      cells[1][threadIdx.x] = mean;
      cells[2][threadIdx.x] = m2;
    }
    __syncthreads();
  }
  if (line != 0 || c >= shape.channels) return;
  S* part = parts + (int64_t{k} * shape.splits + blockIdx.y) * 2 * shape.channels + c;
  part[0] = mean;
  part[shape.channels] = m2;
}

// Merges the splits into mean, var and rstd.
// Thread: one input and channel.
template <class S>
__global__ void __launch_bounds__(kThreads) merge_moments_kernel(Params p, Shape shape, const S* parts) {
  const int64_t cell = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (cell >= p.count * shape.channels) return;
  const int k = static_cast<int>(cell / shape.channels);
  const int64_t c = cell % shape.channels;
  S *mean_out = static_cast<S*>(p.mean), *rstd_out = static_cast<S*>(p.rstd),
    *var_out = static_cast<S*>(p.var);
  const bool computed = normalizes(p, k) && weight_of<S>(p.weights, k) != 0;
  if (!computed) {
    mean_out[cell] = var_out[cell] = 0;
    rstd_out[cell] = weight_of<S>(p.weights, k) != 0 ? S(1) : S(0);
    return;
  }
  double n = 0, mean = 0, m2 = 0;
  for (int split = 0; split < shape.splits; ++split) {
    const S* part = parts + (int64_t{k} * shape.splits + split) * 2 * shape.channels + c;
    const int64_t count = min(shape.split_values, shape.values - split * shape.split_values);
    merge(n, mean, m2, static_cast<double>(count), static_cast<double>(part[0]),
          static_cast<double>(part[shape.channels]));
  }
  mean_out[cell] = static_cast<S>(mean);
  var_out[cell] = static_cast<S>(m2 / n);
  rstd_out[cell] = static_cast<S>(1.0 / sqrt(m2 / n + p.eps));
}

// s_kc and t_c as scales [K + 1, channels].
// Thread: one channel.
template <class S>
__global__ void __launch_bounds__(kThreads) scales_kernel(Params p, S* scales) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= p.channels) return;
  double offset = 0;
  for (int k = 0; k < p.count; ++k) {
    const double weight = static_cast<double>(weight_of<S>(p.weights, k));
    if (weight == 0) continue;
    const double scale = weight * channel_value<S>(p.gamma[k], c, 1) *
                         static_cast<double>(static_cast<const S*>(p.rstd)[k * p.channels + c]);
    scales[k * p.channels + c] = static_cast<S>(scale);
    offset += weight * channel_value<S>(p.beta[k], c, 0) -
              scale * static_cast<double>(static_cast<const S*>(p.mean)[k * p.channels + c]);
  }
  scales[p.count * p.channels + c] = static_cast<S>(offset);
}

template <class T, int kVector>
struct alignas(sizeof(T) * kVector) Vector {
  T values[kVector];
};

// y from scales [K + 1, channels], or (kGradients) every wanted dL/dz_k from coefficients [3, K, channels].
// Thread: kVector neighbouring elements a stride.
// Roofline: (K + 1) M C sizeof(T) bytes / 3.35 TB/s forward, (2 K + 1) for the gradients.
// Design: 16-byte accesses, every tensor touched once, the numbers per channel from the caches.
template <class T, int kVector, bool kGradients>
__global__ void __launch_bounds__(kThreads)
    elements_kernel(Params p, int64_t vectors, const Accumulate<T>* scales) {
  using S = Accumulate<T>;
  using Block = Vector<T, kVector>;
  const int64_t stride = int64_t{gridDim.x} * kThreads, table = p.count * p.channels;
  const int step = p.inner == 1 ? 1 : 0;  // to the channel of the next element
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < vectors; i += stride) {
    const int64_t c = i * kVector / p.inner % p.channels;
    S sums[kVector] = {};
    Block delta{};
    if (kGradients) delta = reinterpret_cast<const Block*>(p.grad_output)[i];
    for (int j = 0; j < kVector && !kGradients; ++j) sums[j] = scales[table + c + j * step];
    for (int k = 0; k < p.count; ++k) {
      const bool computed = weight_of<S>(p.weights, k) != 0;
      const S* scale = scales + k * p.channels + c;
      if constexpr (kGradients) {
        if (p.input_gradients[k] == nullptr) continue;
        Block out;
        Block in{};
        const bool reads = computed && normalizes(p, k) && p.batch_statistics;
        if (reads) in = reinterpret_cast<const Block*>(p.inputs[k])[i];
        for (int j = 0; j < kVector; ++j) {
          S value = computed ? scale[j * step] * to_accumulate(delta.values[j]) : S(0);
          if (reads) {
            value += scale[table + j * step] * to_accumulate(in.values[j]) + scale[2 * table + j * step];
          }
          out.values[j] = round_to<T>(value);
        }
        reinterpret_cast<Block*>(p.input_gradients[k])[i] = out;
      } else {
        if (!computed) continue;
        const Block in = reinterpret_cast<const Block*>(p.inputs[k])[i];
        for (int j = 0; j < kVector; ++j) sums[j] += scale[j * step] * to_accumulate(in.values[j]);
      }
    }
    if constexpr (!kGradients) {
      Block out;
      for (int j = 0; j < kVector; ++j) out.values[j] = round_to<T>(sums[j]);
      reinterpret_cast<Block*>(p.output)[i] = out;
    }
  }
}

// part[0] = A_c and part[1 + j] = B_kc of the j-th input of the group, of one channel and split.
// Block: `width` channels, one split of the values, kGroup inputs.
// Thread: one channel, every lines-th value.
// Roofline: (K + 1) M C sizeof(T) bytes / 3.35 TB/s; g is read K / kGroup times, mostly from L2.
template <class T>
__global__ void __launch_bounds__(kThreads) reduce_kernel(Params p, Shape shape, Accumulate<T>* parts) {
  using S = Accumulate<T>;
  SHARED(S, cells, [1 + kGroup][kThreads]);
  const int first = static_cast<int>(blockIdx.z) * kGroup,
            column = static_cast<int>(threadIdx.x) % shape.width;
  const int line = static_cast<int>(threadIdx.x) / shape.width, lines = kThreads / shape.width;
  const int64_t c = int64_t{blockIdx.x} * shape.width + column;
  const T* inputs[kGroup];
  S mean[kGroup], sums[1 + kGroup] = {};
  bool any = false;
  for (int j = 0; j < kGroup; ++j) {
    const int k = first + j;
    const bool computed = k < p.count && weight_of<S>(p.weights, k) != 0;
    any = any || computed;
    inputs[j] = computed ? static_cast<const T*>(p.inputs[k]) : nullptr;
    mean[j] = computed && c < shape.channels ? static_cast<const S*>(p.mean)[k * shape.channels + c] : S(0);
  }
  if (!any) return;
  const int64_t begin = blockIdx.y * shape.split_values, end = min(begin + shape.split_values, shape.values);
  for (int64_t m = begin + line; m < end && c < shape.channels; m += lines) {
    const int64_t at = shape.at(m, c);
    const S g = to_accumulate(static_cast<const T*>(p.grad_output)[at]);
    sums[0] += g;
    for (int j = 0; j < kGroup; ++j) {
      if (inputs[j] != nullptr) sums[1 + j] += g * (to_accumulate(inputs[j][at]) - mean[j]);
    }
  }
  for (int half = lines; half > 0; half /= 2) {
    for (int j = 0; j <= kGroup && line < half; ++j) {
      if (half < lines) sums[j] += cells[j][threadIdx.x + half * shape.width];
      cells[j][threadIdx.x] = sums[j];
    }
    __syncthreads();
  }
  if (line != 0 || c >= shape.channels) return;
  S* part = parts + (int64_t{blockIdx.z} * shape.splits + blockIdx.y) * (1 + kGroup) * shape.channels + c;
  for (int j = 0; j <= kGroup; ++j) part[j * shape.channels] = sums[j];
}

// From the splits' A_c and B_kc to all gradients and the coefficients a, b, c.
// Block: one input.
// Thread: every 256th channel.
template <class S>
__global__ void __launch_bounds__(kThreads) merge_gradients_kernel(Params p, Shape shape, const S* parts) {
  SHARED(double, cells, [kThreads]);
  const int k = static_cast<int>(blockIdx.x);
  const double weight = static_cast<double>(weight_of<S>(p.weights, k)),
               M = static_cast<double>(shape.values);
  const bool computed = weight != 0, normalized = normalizes(p, k);
  double dw = 0;
  for (int64_t c = threadIdx.x; c < p.channels; c += kThreads) {
    double A = 0, B = 0;
    for (int split = 0; split < shape.splits && computed; ++split) {
      const S* part =
          parts + (int64_t{k / kGroup} * shape.splits + split) * (1 + kGroup) * shape.channels + c;
      A += static_cast<double>(part[0]);
      B += static_cast<double>(part[(1 + k % kGroup) * shape.channels]);
    }
    const int64_t cell = k * p.channels + c, table = p.count * p.channels;
    const double mean = static_cast<double>(static_cast<const S*>(p.mean)[cell]);
    const double r = static_cast<double>(static_cast<const S*>(p.rstd)[cell]);
    const double gamma = channel_value<S>(p.gamma[k], c, 1), beta = channel_value<S>(p.beta[k], c, 0);
    const double a = computed ? weight * gamma * r : 0;
    const double b = computed && normalized && p.batch_statistics ? -a * r * r * B / M : 0;
    if (computed) dw += gamma * r * B + beta * A;
    static_cast<S*>(p.grad_gamma)[cell] = computed && normalized ? static_cast<S>(weight * r * B) : S(0);
    static_cast<S*>(p.grad_beta)[cell] = computed && normalized ? static_cast<S>(weight * A) : S(0);
    S* coefficients = static_cast<S*>(p.coefficients) + cell;
    coefficients[0] = static_cast<S>(a);
    coefficients[table] = static_cast<S>(b);
    coefficients[2 * table] =
        computed && normalized && p.batch_statistics ? static_cast<S>(-a * A / M - b * mean) : S(0);
  }
  for (int half = kThreads; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) {
      if (half < kThreads) dw += cells[threadIdx.x + half];
      cells[threadIdx.x] = dw;
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) static_cast<S*>(p.grad_weights)[k] = static_cast<S>(dw);
}

template <class S>
__global__ void __launch_bounds__(kThreads) update_running_kernel(NormalizedSumRunningParams p) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int k = static_cast<int>(blockIdx.y);
  if (c >= p.channels || p.running_mean[k] == nullptr || weight_of<S>(p.weights, k) == 0) return;
  S &mean = static_cast<S*>(p.running_mean[k])[c], &var = static_cast<S*>(p.running_var[k])[c];
  const S momentum = static_cast<S>(p.momentum), keep = S(1) - momentum;
  mean = keep * mean + momentum * static_cast<const S*>(p.mean)[k * p.channels + c];
  var = keep * var + momentum * static_cast<S>(p.unbias) * static_cast<const S*>(p.var)[k * p.channels + c];
}

unsigned blocks_of(int64_t n) { return static_cast<unsigned>(ceil_div(n, kThreads)); }

template <class T, bool kGradients>
void launch_elements(const Params& p, const void* scales, cudaStream_t stream) {
  constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  const int64_t n = p.outer * p.channels * p.inner;
  uintptr_t addresses = reinterpret_cast<uintptr_t>(p.output) | reinterpret_cast<uintptr_t>(p.grad_output);
  for (int k = 0; k < p.count; ++k) {
    addresses |= reinterpret_cast<uintptr_t>(p.inputs[k]) | reinterpret_cast<uintptr_t>(p.input_gradients[k]);
  }
  const bool whole = addresses % 16 == 0 && (p.inner == 1 ? p.channels : p.inner) % kVector == 0;
  const int64_t vectors = whole ? n / kVector : n;
  launch(whole ? elements_kernel<T, kVector, kGradients> : elements_kernel<T, 1, kGradients>,
         dim3(min(blocks_of(vectors), static_cast<unsigned>(4 * kTargetBlocks))), dim3(kThreads), 0, stream,
         p, vectors, static_cast<const Accumulate<T>*>(scales));
}

template <class F>
void visit(const Params& p, F&& body) {
  if (p.count == 0 || p.outer * p.channels * p.inner == 0) return;
  visit_dtype(p.dtype, body);
}

}  // namespace

void normalized_sum_workspace(const Params& p, int64_t& bytes) {
  const Shape shape = make_shape(p);
  const int64_t groups = ceil_div(p.count, kGroup);
  const int64_t cells =
      max(max(int64_t{2} * p.count, groups * (1 + kGroup)) * shape.splits, int64_t{p.count} + 1);
  bytes = cells * p.channels * (p.dtype == DType::kFloat64 ? 8 : 4);
}

void normalized_sum_statistics(const Params& p, void* stream) {
  visit(p, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = Accumulate<T>;
    const Shape shape = make_shape(p);
    const auto s = static_cast<cudaStream_t>(stream);
    const dim3 grid(static_cast<unsigned>(ceil_div(p.channels, shape.width)),
                    static_cast<unsigned>(shape.splits), static_cast<unsigned>(p.count));
    launch(moments_kernel<T>, grid, dim3(kThreads), 0, s, p, shape, static_cast<S*>(p.workspace));
    launch(merge_moments_kernel<S>, dim3(blocks_of(p.count * p.channels)), dim3(kThreads), 0, s, p, shape,
           static_cast<const S*>(p.workspace));
  });
}

void normalized_sum_apply(const Params& p, void* stream) {
  visit(p, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = Accumulate<T>;
    const auto s = static_cast<cudaStream_t>(stream);
    launch(scales_kernel<S>, dim3(blocks_of(p.channels)), dim3(kThreads), 0, s, p,
           static_cast<S*>(p.workspace));
    launch_elements<T, false>(p, p.workspace, s);
  });
}

void normalized_sum_reduce(const Params& p, void* stream) {
  visit(p, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = Accumulate<T>;
    const Shape shape = make_shape(p);
    const auto s = static_cast<cudaStream_t>(stream);
    const dim3 grid(static_cast<unsigned>(ceil_div(p.channels, shape.width)),
                    static_cast<unsigned>(shape.splits), static_cast<unsigned>(ceil_div(p.count, kGroup)));
    launch(reduce_kernel<T>, grid, dim3(kThreads), 0, s, p, shape, static_cast<S*>(p.workspace));
    launch(merge_gradients_kernel<S>, dim3(static_cast<unsigned>(p.count)), dim3(kThreads), 0, s, p, shape,
           static_cast<const S*>(p.workspace));
  });
}

void normalized_sum_input_gradients(const Params& p, void* stream) {
  visit(p, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_elements<T, true>(p, p.coefficients, static_cast<cudaStream_t>(stream));
  });
}

void normalized_sum_update_running(const NormalizedSumRunningParams& p, void* stream) {
  if (p.count == 0 || p.channels == 0) return;
  launch(p.is_double ? update_running_kernel<double> : update_running_kernel<float>,
         dim3(blocks_of(p.channels), static_cast<unsigned>(p.count)), dim3(kThreads), 0,
         static_cast<cudaStream_t>(stream), p);
}

}  // namespace pynas::cuda
