// Gradients of a norm layer's scale and shift by sample group, and their moments: see affine_grad_moments.h.
#include "common/cuda_moments.h"
#include "common/visit.h"
#include "ops/affine_grad_moments/affine_grad_moments.h"

namespace pynas::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
#if defined(PYNAS_CUDA_EMULATION)  // small tests must split rows too
constexpr int64_t kTargetBlocks = 16, kSplitRows = 16;
constexpr int kMaxUnitBlocks = 2;
#else
constexpr int64_t kTargetBlocks = 132 * 8, kSplitRows = 256;
constexpr int kMaxUnitBlocks = 32768;  // of a grid's second axis; the rest by striding
#endif

// A sample group has rows = group_size * positions, cut into row_splits of split_rows;
// the last may be shorter.
struct Shape {
  int channels, sample_groups, rows, row_splits, split_rows;
  int64_t group_size;
  int channels_per_group;  // channels that share a mean
  Divider by_positions;
  int64_t grad_output[3], input[3], mean[3], rstd[3];  // strides

  int64_t cells() const { return int64_t{2} * sample_groups * row_splits * channels; }
};

// raw[0][group][split][c] = sum over the split's rows of grad_output xhat
// raw[1][group][split][c] = sum over the split's rows of grad_output
// Block: one row split of one sample group; 8 channels, a warp each, where positions are contiguous
//   (kAlongRows), else 32 channels, a lane each.
// Thread: every 32nd (kAlongRows) or 8th row of one channel; lanes lie along the contiguous axis.
// Roofline: both tensors once, 2 B C T sizeof(T) bytes / 3.35 TB/s.
// Design: one pass for both sums; xhat is formed on the way instead of being stored.
template <class T, bool kAlongRows>
__global__ void __launch_bounds__(kThreads)
    affine_kernel(Shape shape, const T* __restrict__ grad_output, const T* __restrict__ input,
                  const Accumulate<T>* __restrict__ mean, const Accumulate<T>* __restrict__ rstd,
                  Accumulate<T>* __restrict__ raw) {
  using Sum = Accumulate<T>;
  SHARED(Sum, partial, [2][kWarps][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int c = kAlongRows ? blockIdx.x * kWarps + warp : blockIdx.x * 32 + lane;
  const bool active = c < shape.channels;
  const int k = c / shape.channels_per_group;

  for (int unit = blockIdx.y; unit < shape.sample_groups * shape.row_splits; unit += gridDim.y) {
    const int group = unit / shape.row_splits, split = unit % shape.row_splits;
    const int begin = split * shape.split_rows, end = min(shape.rows, begin + shape.split_rows);
    Sum scale = 0, shift = 0;
    if (active) {
#pragma unroll 4
      for (int r = begin + (kAlongRows ? lane : warp); r < end; r += kAlongRows ? 32 : kWarps) {
        const uint32_t sample = shape.by_positions.divide(r);
        const int64_t b = group * shape.group_size + sample, t = shape.by_positions.remainder(r, sample);
        const Sum d = to_accumulate(
            grad_output[b * shape.grad_output[0] + c * shape.grad_output[1] + t * shape.grad_output[2]]);
        const Sum x = to_accumulate(input[b * shape.input[0] + c * shape.input[1] + t * shape.input[2]]);
        const Sum centre = mean[b * shape.mean[0] + k * shape.mean[1] + t * shape.mean[2]];
        const Sum inverse = rstd[b * shape.rstd[0] + k * shape.rstd[1] + t * shape.rstd[2]];
        scale += d * ((x - centre) * inverse);
        shift += d;
      }
    }
    bool writes = active;
    if constexpr (kAlongRows) {
      scale = warp_sum(scale);
      shift = warp_sum(shift);
      writes = active && lane == 0;
    } else {
      partial[0][warp][lane] = scale;
      partial[1][warp][lane] = shift;
      __syncthreads();
      writes = active && warp == 0;
      for (int w = 1; writes && w < kWarps; ++w) {
        scale += partial[0][w][lane];
        shift += partial[1][w][lane];
      }
      __syncthreads();  // the next unit overwrites `partial`
    }
    if (writes) {
      const int64_t units = int64_t{shape.sample_groups} * shape.row_splits;
      raw[int64_t{unit} * shape.channels + c] = scale;
      raw[(units + unit) * shape.channels + c] = shift;
    }
  }
}

// Adds up the row splits and writes the gradients (rows) or folds them over sample groups (weight, bias).
// Block: 256 (which, channel) pairs.
// Thread: one pair, all groups.
// Roofline: 2 G splits C sizeof(S) bytes / 3.35 TB/s: negligible beside the first kernel.
// Design: a second pass instead of atomics, so that the sums have one order.
template <class S>
__global__ void __launch_bounds__(kThreads)
    affine_fold_kernel(Shape shape, const S* __restrict__ raw, uint32_t mask, S* __restrict__ weight,
                       S* __restrict__ bias, S* __restrict__ rows) {
  const int pair = blockIdx.x * kThreads + threadIdx.x;
  if (pair >= 2 * shape.channels) return;
  const int which = pair / shape.channels, c = pair % shape.channels;
  const S* from = raw + int64_t{which} * shape.sample_groups * shape.row_splits * shape.channels + c;
  MomentSums<S> sums;
  for (int group = 0; group < shape.sample_groups; ++group) {
    S value = 0;
    for (int split = 0; split < shape.row_splits; ++split, from += shape.channels) value += *from;
    if (rows != nullptr) {
      rows[(int64_t{which} * shape.sample_groups + group) * shape.channels + c] = value;
    } else {
      sums.add(value);
    }
  }
  if (rows == nullptr) sums.store((which == 0 ? weight : bias) + c, shape.channels, mask);
}

// Lanes follow whichever of positions and channels lie closer together.
bool along_rows(const AffineGradMomentsParams& p) {
  return p.positions > 1 && p.grad_output_strides[2] <= p.grad_output_strides[1];
}

Shape make_shape(const AffineGradMomentsParams& p) {
  Shape shape;
  shape.channels = static_cast<int>(p.channels);
  shape.sample_groups = static_cast<int>(p.batch / p.group_size);
  shape.group_size = p.group_size;
  shape.rows = static_cast<int>(p.group_size * p.positions);
  shape.channels_per_group =
      static_cast<int>(max(int64_t{1}, p.channels / max(int64_t{1}, p.channel_groups)));
  shape.by_positions = Divider(static_cast<uint32_t>(max(int64_t{1}, p.positions)));
  for (int i = 0; i < 3; ++i) {
    shape.grad_output[i] = p.grad_output_strides[i];
    shape.input[i] = p.input_strides[i];
    shape.mean[i] = p.mean_strides[i];
    shape.rstd[i] = p.rstd_strides[i];
  }
  const int64_t blocks = ceil_div(p.channels, along_rows(p) ? kWarps : 32) * shape.sample_groups;
  const int64_t splits =
      min(ceil_div(kTargetBlocks, max(int64_t{1}, blocks)), ceil_div(shape.rows, kSplitRows));
  shape.split_rows = static_cast<int>(ceil_div(shape.rows, max(int64_t{1}, splits)));
  shape.row_splits = shape.rows == 0 ? 1 : ceil_div(shape.rows, shape.split_rows);
  return shape;
}

// The first kernel may write the caller's rows itself when nothing is split.
bool needs_workspace(const AffineGradMomentsParams& p, const Shape& shape) {
  return p.rows == nullptr || shape.row_splits > 1;
}

template <class T>
void run(const AffineGradMomentsParams& p, cudaStream_t stream) {
  using S = Accumulate<T>;
  const Shape shape = make_shape(p);
  if (shape.channels == 0) return;
  const bool through_workspace = needs_workspace(p, shape);
  S* raw = static_cast<S*>(through_workspace ? p.workspace : p.rows);
  const int units = shape.sample_groups * shape.row_splits;
  if (units > 0) {
    const bool rows = along_rows(p);
    const dim3 grid(static_cast<unsigned>(ceil_div(shape.channels, rows ? kWarps : 32)),
                    static_cast<unsigned>(min(units, kMaxUnitBlocks)));
    launch(rows ? affine_kernel<T, true> : affine_kernel<T, false>, grid, dim3(kThreads), 0, stream, shape,
           static_cast<const T*>(p.grad_output), static_cast<const T*>(p.input),
           static_cast<const S*>(p.mean), static_cast<const S*>(p.rstd), raw);
  }
  if (!through_workspace) return;
  launch(affine_fold_kernel<S>, dim3(static_cast<unsigned>(ceil_div(2 * shape.channels, kThreads))),
         dim3(kThreads), 0, stream, shape, raw, p.moments, static_cast<S*>(p.weight), static_cast<S*>(p.bias),
         static_cast<S*>(p.rows));
}

}  // namespace

void affine_grad_moments_workspace(const AffineGradMomentsParams& p, size_t& bytes) {
  const Shape shape = make_shape(p);
  const size_t sum_bytes = p.dtype == DType::kFloat64 ? 8 : 4;
  bytes = needs_workspace(p, shape) ? static_cast<size_t>(shape.cells()) * sum_bytes : 0;
}

void affine_grad_moments(const AffineGradMomentsParams& p, void* stream) {
  visit_dtype(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    run<T>(p, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace pynas::cuda
