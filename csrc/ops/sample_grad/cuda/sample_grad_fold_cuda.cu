// Consumers: from raw gradients and partial results in the workspace to moments, norms and the Gram matrix.
#include "common/cuda_moments.h"
#include "ops/sample_grad/cuda/sample_grad_cuda.h"

namespace pynas::cuda {
namespace {

// out[k][p] = the k-th moment of weight p, merged over the splits (Chan et al. 1979) in double.
// Block: 256 neighbouring weights.
// Thread: one weight over all splits and slots.
// Roofline: (splits + 1) moments x weights x 4 bytes / 3.35 TB/s.
// Design: lanes follow the output, so that it is written whole; reads in the tiles' order (tap, channel) are
//   served by L1.
__global__ void __launch_bounds__(256)
    merge_kernel(ElementMap map, MomentSlots slots, const float* __restrict__ partial, int splits,
                 int sample_groups, int64_t weights, uint32_t mask, float* __restrict__ out) {
  const int64_t p = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (p >= weights) return;
  const int64_t index = map.locate(static_cast<uint32_t>(p));
  MomentSums<double> total;
  for (int split = 0; split < splits; ++split) {
    MomentSums<double> part;
    const int64_t begin = int64_t{sample_groups} * split / splits,
                  end = int64_t{sample_groups} * (split + 1) / splits;
    part.count = static_cast<double>(end - begin);
    for (int k = 0; k < slots.count; ++k) {
      const double value = partial[(int64_t{split} * slots.count + k) * map.size + index];
      const unsigned moment = 1u << slots.bit[k];
      if (moment == kMomentSum) part.sum = value;
      if (moment == kMomentAbs) part.abs = value;
      if (moment == kMomentSquare) part.square = value;
      if (moment == kMomentSign) part.sign = value;
      if (moment == kMomentCentered) part.centered = value;
    }
    total.merge(part);
  }
  MomentSums<float> result;
  result.sum = static_cast<float>(total.sum);
  result.abs = static_cast<float>(total.abs);
  result.square = static_cast<float>(total.square);
  result.sign = static_cast<float>(total.sign);
  result.centered = static_cast<float>(total.centered);
  result.store(out + p, weights, mask);
}

// out[k][p] = the k-th moment over sample groups of sum_splits raw[group][split][p].
// Block: 256 neighbouring weights.
// Thread: one weight over all groups.
// Roofline: units x weights x sizeof(T) bytes / 3.35 TB/s, and the result once.
// Design: only few or small units come this way; their raw gradients mostly still lie in L2.
template <class T>
__global__ void __launch_bounds__(256)
    fold_kernel(ElementMap map, const T* __restrict__ raw, int sample_groups, int row_splits, int64_t weights,
                uint32_t mask, T* __restrict__ out) {
  const int64_t p = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (p >= weights) return;
  const int64_t index = map.locate(static_cast<uint32_t>(p));
  if (index < 0) return;  // in another slab
  MomentSums<T> sums;
  const T* from = raw + index;
  for (int group = 0; group < sample_groups; ++group) {
    T value = 0;
    for (int split = 0; split < row_splits; ++split, from += map.size) value += *from;
    sums.add(value);
  }
  sums.store(out + p, weights, mask);
}

// out[group] (+)= sum over elements of value^2 (squared) or value, with
// value = sum_splits values[group][split][element].
// Block: one sample group.
// Thread: every 256th element, then a tree over the block.
// Roofline: the bytes of the values / 3.35 TB/s.
// Design: one block a group keeps the order of the sum fixed without a second pass.
template <class T>
__global__ void __launch_bounds__(256) norm_kernel(bool squared, bool first, const T* __restrict__ values,
                                                   int row_splits, int64_t size, T* __restrict__ out) {
  SHARED(double, partial, [8]);
  const T* from = values + int64_t{blockIdx.x} * row_splits * size;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < size; i += 256) {
    T value = 0;
    for (int split = 0; split < row_splits; ++split) value += from[split * size + i];
    sum += squared ? static_cast<double>(value) * value : value;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = first ? 0 : out[blockIdx.x];
    for (int warp = 0; warp < 8; ++warp) total += partial[warp];
    out[blockIdx.x] = static_cast<T>(total);
  }
}

// partial[split][g][h] (+)= sum over the split's elements of raw[g] raw[h], for h <= g.
// Block: 32 x 32 pairs of groups on or below the diagonal, one share of the elements.
// Thread: 2 x 2 pairs; loads 4 elements of each operand a step of 32 elements.
// Roofline: G^2 size operations (half of 2 G^2 size, by symmetry) / 67 TFLOP/s; each raw value is read about
//   G / 32 times, from L2.
// Design: the ghost product needs no raw gradients, but (rows of a sample)^2 work a pair: more, from images
//   of 16 x 16 on.
template <class T>
__global__ void __launch_bounds__(256)
    gram_kernel(bool first, const T* __restrict__ raw, int groups, int64_t size, T* __restrict__ partial) {
  SHARED(T, left, [32][33]);
  SHARED(T, right, [32][33]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tx = threadIdx.x % 16 * 2,
            ty = threadIdx.x / 16 * 2;
  int tile_row = 0, tile_column = blockIdx.x;  // the blockIdx.x-th tile of the lower triangle
  while (tile_column > tile_row) tile_column -= ++tile_row;
  const int g0 = tile_row * 32, h0 = tile_column * 32;
  const int64_t share = ceil_div(ceil_div(size, gridDim.y), 32) * 32;
  const int64_t begin = blockIdx.y * share, end = min(size, begin + share);
  T sums[2][2] = {};
  for (int64_t e0 = begin; e0 < end; e0 += 32) {
    for (int i = warp; i < 32; i += 8) {  // transposed: [element][group]
      const bool valid = e0 + lane < end;
      left[lane][i] = valid && g0 + i < groups ? raw[(g0 + i) * size + e0 + lane] : T(0);
      right[lane][i] = valid && h0 + i < groups ? raw[(h0 + i) * size + e0 + lane] : T(0);
    }
    __syncthreads();
    for (int e = 0; e < 32; ++e) {
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) sums[i][j] += left[e][ty + i] * right[e][tx + j];
      }
    }
    __syncthreads();
  }
  T* out = partial + int64_t{blockIdx.y} * groups * groups;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      const int g = g0 + ty + i, h = h0 + tx + j;
      if (g >= groups || h > g) continue;
      T& cell = out[int64_t{g} * groups + h];
      cell = first ? sums[i][j] : cell + sums[i][j];
    }
  }
}

// out[g][h] = out[h][g] = sum over splits of partial[split][g][h], h <= g.
// Block: 256 pairs.
// Thread: one pair.
// Roofline: splits G^2 sizeof(T) bytes / 3.35 TB/s.
// Design: a second pass instead of atomics, so that the sum has one order.
template <class T>
__global__ void __launch_bounds__(256)
    finish_gram_kernel(const T* __restrict__ partial, int splits, int groups, T* __restrict__ out) {
  const int64_t pair = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, pairs = int64_t{groups} * groups;
  if (pair >= pairs) return;
  const int64_t g = max(pair / groups, pair % groups), h = min(pair / groups, pair % groups);
  double sum = 0;
  for (int split = 0; split < splits; ++split) sum += partial[split * pairs + g * groups + h];
  out[pair] = static_cast<T>(sum);
}

unsigned blocks_of_256(int64_t count) { return static_cast<unsigned>(ceil_div(count, 256)); }

template <class F>
void visit_sum(bool wide, F&& function) {
  if (wide) return function(TypeTag<double>{});
  return function(TypeTag<float>{});
}

int gram_tiles(int sample_groups) {
  const int side = ceil_div(sample_groups, 32);
  return side * (side + 1) / 2;
}

}  // namespace

void merge_moments(const ElementMap& map, const MomentSlots& slots, const float* partial, int splits,
                   int sample_groups, int64_t weights, uint32_t mask, float* out, cudaStream_t stream) {
  if (weights == 0) return;
  launch(merge_kernel, dim3(blocks_of_256(weights)), dim3(256), 0, stream, map, slots, partial, splits,
         sample_groups, weights, mask, out);
}

void fold_moments(const ElementMap& map, bool wide, const void* raw, int sample_groups, int row_splits,
                  int64_t weights, uint32_t mask, void* out, cudaStream_t stream) {
  if (weights == 0) return;
  visit_sum(wide, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(fold_kernel<T>, dim3(blocks_of_256(weights)), dim3(256), 0, stream, map,
           static_cast<const T*>(raw), sample_groups, row_splits, weights, mask, static_cast<T*>(out));
  });
}

void add_norms(bool wide, bool squared, bool first, const void* values, int sample_groups, int row_splits,
               int64_t size, void* out, cudaStream_t stream) {
  if (sample_groups == 0) return;
  visit_sum(wide, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(norm_kernel<T>, dim3(static_cast<unsigned>(sample_groups)), dim3(256), 0, stream, squared, first,
           static_cast<const T*>(values), row_splits, size, static_cast<T*>(out));
  });
}

int gram_splits(int sample_groups) {
  if (sample_groups == 0) return 0;
  return min(64, ceil_div(kTargetBlocks, gram_tiles(sample_groups)));
}

void add_gram(bool wide, bool first, const void* raw, int sample_groups, int64_t size, void* partial,
              cudaStream_t stream) {
  if (sample_groups == 0) return;
  const dim3 grid(static_cast<unsigned>(gram_tiles(sample_groups)),
                  static_cast<unsigned>(gram_splits(sample_groups)));
  visit_sum(wide, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(gram_kernel<T>, grid, dim3(256), 0, stream, first, static_cast<const T*>(raw), sample_groups, size,
           static_cast<T*>(partial));
  });
}

void finish_gram(bool wide, bool any, const void* partial, int sample_groups, void* out,
                 cudaStream_t stream) {
  if (sample_groups == 0) return;
  const int splits = any ? gram_splits(sample_groups) : 0;
  visit_sum(wide, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(finish_gram_kernel<T>, dim3(blocks_of_256(int64_t{sample_groups} * sample_groups)), dim3(256), 0,
           stream, static_cast<const T*>(partial), splits, sample_groups, static_cast<T*>(out));
  });
}

}  // namespace pynas::cuda
