// Moments over sample groups of an embedding's gradient, touched rows only: see embedding_grad_moments.h.
#include "common/cuda_moments.h"
#include "common/visit.h"
#include "ops/embedding_grad_moments/embedding_grad_moments.h"

namespace pynas::cuda {
namespace {

constexpr int kWarps = 4;  // that share the look-ups of one row

// values[k][u][d] = the k-th moment over sample groups of the group's sum of grad_output at row u's
// positions.
// Block: one touched row, 32 features; the row's look-ups are dealt to 4 warps, cut between sample groups.
// Thread: one feature, the groups of its warp's share; then warp 0 merges the four (Chan), in order.
// Roofline: grad_output once, N D sizeof(T) bytes, and K U D results of sizeof(Sum) bytes, / 3.35 TB/s.
// Design: the sort in the binding makes each group's look-ups of a row one run, so there are no atomics and
//   no tensor [groups, U, D].
template <class T>
__global__ void __launch_bounds__(kWarps * 32) embedding_kernel(EmbeddingGradMomentsParams p) {
  using Sum = Accumulate<T>;
  constexpr int kFields = MomentSums<Sum>::kFields;
  SHARED(Sum, parts, [kWarps][kFields][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t u = blockIdx.x, d = int64_t{blockIdx.y} * 32 + lane;
  const bool active = d < p.features;
  const int64_t first = p.offsets[u], last = p.offsets[u + 1];
  auto group_of = [&](int64_t i) { return p.order[i] / p.group_positions; };
  auto share_begin = [&](int share) {  // moved on to where a group begins
    int64_t i = first + (last - first) * share / kWarps;
    while (i > first && i < last && group_of(i) == group_of(i - 1)) ++i;
    return i;
  };

  MomentSums<Sum> sums;
  const int64_t end = share_begin(warp + 1);
  for (int64_t i = share_begin(warp); i < end;) {
    const int64_t group = group_of(i);
    Sum value = 0;
    for (; i < end && group_of(i) == group; ++i) {
      if (active)
        value += to_accumulate(static_cast<const T*>(p.grad_output)[p.order[i] * p.grad_output_stride + d]);
    }
    sums.add(value);
  }
  sums.save(&parts[warp][0][lane], 32);
  __syncthreads();
  if (warp > 0 || !active) return;
  for (int w = 1; w < kWarps; ++w) sums.merge(MomentSums<Sum>::load(&parts[w][0][lane], 32));
  sums.add_zeros(static_cast<Sum>(p.groups) - sums.count);
  sums.store(static_cast<Sum*>(p.values) + u * p.features + d, p.rows * p.features, p.moments);
}

}  // namespace

void embedding_grad_moments(const EmbeddingGradMomentsParams& p, void* stream) {
  if (p.rows == 0 || p.features == 0) return;
  const dim3 grid(static_cast<unsigned>(p.rows), static_cast<unsigned>(ceil_div(p.features, 32)));
  visit_dtype(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(embedding_kernel<T>, grid, dim3(kWarps * 32), 0, static_cast<cudaStream_t>(stream), p);
  });
}

}  // namespace pynas::cuda
