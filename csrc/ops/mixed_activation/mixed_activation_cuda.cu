// A node of a recurrent supernet cell: see mixed_activation.h for the formulas.
#include "common/visit.h"
#include "ops/mixed_activation/mixed_activation.h"

namespace pynas::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int64_t kMaxBlocks = 132 * 8;  // a full H100; the rest by striding

__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }
__device__ inline float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ inline double hyperbolic_tangent(double x) { return tanh(x); }
__device__ inline float magnitude(float x) { return fabsf(x); }
__device__ inline double magnitude(double x) { return fabs(x); }

// What kernels need of MixedActivationParams.
struct Shape {
  int64_t predecessors, batch, features, candidates;
  int32_t column[kActivations];
};

template <class S>
struct Weights {
  S of[kActivations], total;
  bool any;

  __device__ Weights(const Shape& shape, const S* weights, int64_t j) : total(0), any(false) {
    for (int a = 0; a < kActivations; ++a) {
      of[a] = shape.column[a] < 0 ? S(0) : weights[j * shape.candidates + shape.column[a]];
      total += of[a];
      any = any || of[a] != S(0);
    }
  }
};

// sigma(x) and 1 - sigma(x), each with a small relative error.
template <class S>
struct Sigmoid {
  S value, rest;

  __device__ explicit Sigmoid(S x) {
    const S t = exponential(-magnitude(x)), inverse = S(1) / (S(1) + t);
    value = x < S(0) ? t * inverse : inverse;
    rest = x < S(0) ? inverse : t * inverse;
  }
};

// f_a(h) and f_a'(h); a is known when the loop around the call is unrolled.
template <class S>
__device__ inline void activate(int a, S h, S& value, S& slope) {
  if (a == static_cast<int>(Activation::kTanh)) {
    value = hyperbolic_tangent(h);
    slope = (S(1) - value) * (S(1) + value);
  } else if (a == static_cast<int>(Activation::kRelu)) {
    value = h < S(0) ? S(0) : h;  // NaN stays
    slope = h > S(0) ? S(1) : S(0);
  } else if (a == static_cast<int>(Activation::kSigmoid)) {
    const Sigmoid<S> sigmoid(h);
    value = sigmoid.value;
    slope = sigmoid.value * sigmoid.rest;
  } else {
    value = h;
    slope = S(1);
  }
}

// out_bd = s_bd, as elements where nothing follows and as sums where a normalisation does.
// Block: 256 threads striding over [B, D] together; neighbouring threads take neighbouring features.
// Thread: one (b, d), all predecessors; weights are the same for all threads, so that no warp divides.
// Roofline: 3 J B D sizeof(T) bytes / 3.35 TB/s.
// Design: one pass over states and products; a plain implementation writes and reads some ten tensors of
//   their size.
template <class T, class Out>
__global__ void __launch_bounds__(kThreads)
    mixture_kernel(Shape shape, const T* __restrict__ states, const T* __restrict__ products,
                   const Accumulate<T>* __restrict__ weights, Out* __restrict__ out) {
  using S = Accumulate<T>;
  const int64_t size = shape.batch * shape.features, stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < size; i += stride) {
    const int64_t b = i / shape.features, d = i - b * shape.features;
    S sum = 0;
    for (int64_t j = 0; j < shape.predecessors; ++j) {
      const Weights<S> w(shape, weights, j);
      if (!w.any) continue;
      const int64_t row = j * shape.batch + b;
      const S s = to_accumulate(states[row * shape.features + d]);
      const S h = to_accumulate(products[(2 * row + 1) * shape.features + d]);
      const Sigmoid<S> gate(to_accumulate(products[2 * row * shape.features + d]));
      S mixture = 0;
#pragma unroll
      for (int a = 0; a < kActivations; ++a) {
        if (w.of[a] == S(0)) continue;
        S value, slope;
        activate(a, h, value, slope);
        mixture += w.of[a] * value;
      }
      sum += gate.value * mixture + gate.rest * (w.total * s);
    }
    out[i] = round_to<Out>(sum);
  }
}

// The sum over the block's warps of what each lane holds, in a fixed order, in every warp.
__device__ inline double sum_warps(double value, double (*shared)[32]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();
  shared[warp][lane] = value;
  __syncthreads();
  double total = 0;
  for (int w = 0; w < kWarps; ++w) total += shared[w][lane];
  return total;
}

// y = (s - mean) / sqrt(var + eps), with the batch's own statistics (kOwn) or given ones.
// Block: 32 columns, a lane each; its warps take every 8th row.
// Roofline: (kOwn ? 3 : 1) reads and one write of [B, D], which lie in L2.
// Design: mean, then squared deviations from it, in float64: no cancelling, and one launch.
template <class T, bool kOwn>
__global__ void __launch_bounds__(kThreads)
    normalize_kernel(int64_t batch, int64_t features, double eps, const Accumulate<T>* __restrict__ sums,
                     Accumulate<T>* __restrict__ mean, Accumulate<T>* __restrict__ var, T* __restrict__ y) {
  using S = Accumulate<T>;
  SHARED(double, shared, [kWarps][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t d = int64_t{blockIdx.x} * 32 + lane;
  const bool active = d < features;
  double centre = 0, variance = 0;
  if constexpr (kOwn) {
    double total = 0, square = 0;
    if (active) {
      for (int64_t b = warp; b < batch; b += kWarps) total += static_cast<double>(sums[b * features + d]);
    }
    centre = sum_warps(total, shared) / static_cast<double>(batch);
    if (active) {
      for (int64_t b = warp; b < batch; b += kWarps) {
        const double away = static_cast<double>(sums[b * features + d]) - centre;
        square += away * away;
      }
    }
    variance = sum_warps(square, shared) / static_cast<double>(batch);
    if (active && warp == 0) {
      mean[d] = static_cast<S>(centre);
      var[d] = static_cast<S>(variance);
    }
  } else if (active) {
    centre = static_cast<double>(mean[d]);
    variance = static_cast<double>(var[d]);
  }
  if (!active) return;
  const S scale = static_cast<S>(1.0 / sqrt(variance + eps)), middle = static_cast<S>(centre);
  for (int64_t b = warp; b < batch; b += kWarps)
    y[b * features + d] = round_to<T>((sums[b * features + d] - middle) * scale);
}

// e from dL/dy: see the header. Block, thread and roofline as of normalize_kernel, with g and y.
template <class T, bool kOwn>
__global__ void __launch_bounds__(kThreads)
    normalize_backward_kernel(int64_t batch, int64_t features, double eps, const T* __restrict__ grad,
                              const T* __restrict__ y, const Accumulate<T>* __restrict__ var,
                              Accumulate<T>* __restrict__ folded) {
  using S = Accumulate<T>;
  SHARED(double, shared, [kWarps][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t d = int64_t{blockIdx.x} * 32 + lane;
  const bool active = d < features;
  double mean_g = 0, mean_gy = 0;
  if constexpr (kOwn) {
    double total = 0, dot = 0;
    if (active) {
      for (int64_t b = warp; b < batch; b += kWarps) {
        const double g = static_cast<double>(to_accumulate(grad[b * features + d]));
        total += g;
        dot += g * static_cast<double>(to_accumulate(y[b * features + d]));
      }
    }
    mean_g = sum_warps(total, shared) / static_cast<double>(batch);
    mean_gy = sum_warps(dot, shared) / static_cast<double>(batch);
  }
  if (!active) return;
  const S scale = static_cast<S>(1.0 / sqrt(static_cast<double>(var[d]) + eps));
  const S offset = static_cast<S>(mean_g), slope = static_cast<S>(mean_gy);
  for (int64_t b = warp; b < batch; b += kWarps) {
    S g = to_accumulate(grad[b * features + d]);
    if constexpr (kOwn) g -= offset + to_accumulate(y[b * features + d]) * slope;
    folded[b * features + d] = g * scale;
  }
}

// The gradients of states and products, and each block's share of the weights' gradients.
// Grid: blocks of [B, D] x predecessors; block and thread as of mixture_kernel, for one predecessor.
// Roofline: 6 J B D sizeof(T) + B D sizeof(E) bytes / 3.35 TB/s; e is read from L2 after the first
//   predecessor.
// Design: activations are computed again from the products instead of being stored.
template <class T, class E>
__global__ void __launch_bounds__(kThreads)
    mixture_backward_kernel(Shape shape, const T* __restrict__ states, const T* __restrict__ products,
                            const Accumulate<T>* __restrict__ weights, const E* __restrict__ folded,
                            T* __restrict__ grad_states, T* __restrict__ grad_products,
                            double* __restrict__ partial) {
  using S = Accumulate<T>;
  SHARED(double, shared, [kWarps][kActivations]);
  const int64_t size = shape.batch * shape.features, stride = int64_t{gridDim.x} * kThreads, j = blockIdx.y;
  const Weights<S> w(shape, weights, j);
  S of[kActivations] = {}, carried = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < size; i += stride) {
    const int64_t b = i / shape.features, d = i - b * shape.features, row = j * shape.batch + b;
    const int64_t at_state = row * shape.features + d, at_c = 2 * row * shape.features + d;
    const int64_t at_h = at_c + shape.features;
    if (!w.any) {
      grad_states[at_state] = grad_products[at_c] = grad_products[at_h] = round_to<T>(S(0));
      continue;
    }
    const S s = to_accumulate(states[at_state]), h = to_accumulate(products[at_h]);
    const S e = to_accumulate(folded[i]);
    const Sigmoid<S> gate(to_accumulate(products[at_c]));
    const S opened = e * gate.value, shut = e * gate.rest;
    S mixture = 0, slopes = 0;
#pragma unroll
    for (int a = 0; a < kActivations; ++a) {
      if (w.of[a] == S(0)) continue;
      S value, slope;
      activate(a, h, value, slope);
      mixture += w.of[a] * value;
      slopes += w.of[a] * slope;
      of[a] += opened * value;
    }
    carried += shut * s;
    grad_states[at_state] = round_to<T>(shut * w.total);
    grad_products[at_c] = round_to<T>(opened * gate.rest * (mixture - w.total * s));
    grad_products[at_h] = round_to<T>(opened * slopes);
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int a = 0; a < kActivations; ++a) {
    const bool counts = w.of[a] != S(0);
    const double total = warp_sum(counts ? static_cast<double>(of[a]) + static_cast<double>(carried) : 0.0);
    if (lane == 0) shared[warp][a] = total;
  }
  __syncthreads();
  if (threadIdx.x < kActivations) {
    double total = 0;
    for (int k = 0; k < kWarps; ++k) total += shared[k][threadIdx.x];
    partial[(int64_t{blockIdx.x} * shape.predecessors + j) * kActivations + threadIdx.x] = total;
  }
}

// dL/dw_jk from the blocks' shares, in the order of the blocks.
// Thread: one (j, k). It takes as long as a launch.
template <class S>
__global__ void __launch_bounds__(kThreads)
    weights_kernel(Shape shape, int64_t blocks, const double* __restrict__ partial, S* __restrict__ grad) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= shape.predecessors * shape.candidates) return;
  const int64_t j = i / shape.candidates, k = i - j * shape.candidates;
  double total = 0;
  for (int a = 0; a < kActivations; ++a) {
    if (shape.column[a] != k) continue;
    for (int64_t block = 0; block < blocks; ++block)
      total += partial[(block * shape.predecessors + j) * kActivations + a];
  }
  grad[i] = static_cast<S>(total);
}

dim3 grid(int64_t x, int64_t y = 1) { return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y)); }

Shape shape_of(const MixedActivationParams& p) {
  Shape shape{p.predecessors, p.batch, p.features, p.candidates, {}};
  for (int a = 0; a < kActivations; ++a) shape.column[a] = p.column[a];
  return shape;
}

template <class T, class Out>
void mixture(const MixedActivationParams& p, void* out, cudaStream_t stream) {
  const int64_t blocks = min(ceil_div(p.batch * p.features, int64_t{kThreads}), kMaxBlocks);
  launch(mixture_kernel<T, Out>, grid(blocks), dim3(kThreads), 0, stream, shape_of(p),
         static_cast<const T*>(p.states), static_cast<const T*>(p.products),
         static_cast<const Accumulate<T>*>(p.weights), static_cast<Out*>(out));
}

template <class T, class E>
void mixture_backward(const MixedActivationParams& p, const void* folded, cudaStream_t stream) {
  const int64_t blocks = mixed_activation_cuda_blocks(p.batch, p.features);
  launch(mixture_backward_kernel<T, E>, grid(blocks, p.predecessors), dim3(kThreads), 0, stream, shape_of(p),
         static_cast<const T*>(p.states), static_cast<const T*>(p.products),
         static_cast<const Accumulate<T>*>(p.weights), static_cast<const E*>(folded),
         static_cast<T*>(p.grad_states), static_cast<T*>(p.grad_products), p.partial);
}

}  // namespace

void mixed_activation(const MixedActivationParams& p, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  visit_dtype(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = Accumulate<T>;
    if (p.normalization == Normalization::kNone) return mixture<T, T>(p, p.y, stream);
    mixture<T, S>(p, p.sums, stream);
    const auto kernel =
        p.normalization == Normalization::kBatch ? normalize_kernel<T, true> : normalize_kernel<T, false>;
    launch(kernel, grid(ceil_div(p.features, 32)), dim3(kThreads), 0, stream, p.batch, p.features, p.eps,
           static_cast<const S*>(p.sums), static_cast<S*>(p.mean), static_cast<S*>(p.var),
           static_cast<T*>(p.y));
  });
}

void mixed_activation_backward(const MixedActivationParams& p, void* stream_) {
  const auto stream = static_cast<cudaStream_t>(stream_);
  visit_dtype(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using S = Accumulate<T>;
    if (p.normalization == Normalization::kNone) {
      mixture_backward<T, T>(p, p.grad, stream);
    } else {
      const auto kernel = p.normalization == Normalization::kBatch ? normalize_backward_kernel<T, true>
                                                                   : normalize_backward_kernel<T, false>;
      launch(kernel, grid(ceil_div(p.features, 32)), dim3(kThreads), 0, stream, p.batch, p.features, p.eps,
             static_cast<const T*>(p.grad), static_cast<const T*>(p.y), static_cast<const S*>(p.var),
             static_cast<S*>(p.sums));
      mixture_backward<T, S>(p, p.sums, stream);
    }
    launch(weights_kernel<S>, grid(ceil_div(p.predecessors * p.candidates, kThreads)), dim3(kThreads), 0,
           stream, shape_of(p), mixed_activation_cuda_blocks(p.batch, p.features),
           static_cast<const double*>(p.partial), static_cast<S*>(p.grad_weights));
  });
}

}  // namespace pynas::cuda
