// A kernel with planted faults, to show that the emulation catches each kind: emulation_runs.py says by
// which build.
#include "buffers.h"
#include "common/cuda_ptx.h"

namespace {

enum Fault {
  kNone,
  kEarlyReturn,        // threads leave before a barrier
  kNoCopyWait,         // a tile is read before its copy has arrived
  kMissingBarrier,     // no barrier between filling and reading the tile
  kSharedOverrun,      // one past the end of shared memory
  kDivergentBarrier,   // a barrier that half the block does not reach
  kMissingBound,       // reads beyond the input
  kRaceInBlock,        // plain increment of a global counter by every thread
  kRaceBetweenBlocks,  // the same by one thread a block
  kShuffleAsFence,     // shared memory passed between lanes with a shuffle, which orders nothing
};

}  // namespace

namespace pynas::cuda {
namespace {

// totals[b] = sum of 128 values, which come by cp.async; counts[value % 4] counts them over all blocks,
// counts[4] the blocks.
template <int kFault>
__global__ void faulty_kernel(const float* x, int n, float* totals, int* counts) {
  SHARED(__align__(16) float, tile, [128]);
  SHARED(float, sums, [4]);
  const int i = blockIdx.x * 128 + threadIdx.x;
  if (kFault == kEarlyReturn && i >= n) return;
  if (threadIdx.x < 32) {
    const int first = blockIdx.x * 128 + threadIdx.x * 4;
    const int valid = max(0, min(4, n - first)) * 4;
    cp_async_16(&tile[threadIdx.x * 4], valid > 0 ? x + first : x, valid);
    cp_async_commit();
    if (kFault != kNoCopyWait) cp_async_wait<0>();
  }
  if (kFault != kMissingBarrier) __syncthreads();
  float sum = tile[threadIdx.x];
  if (kFault == kShuffleAsFence) {
    tile[threadIdx.x] = 2 * sum;
    __shfl_sync(0xffffffffu, 0, 0);
    sum = tile[threadIdx.x ^ 1] / 2;
  }
  sum = warp_sum(sum);
  float* cells = sums;
  asm volatile("" : "+r"(cells));  // hides the array's bounds from the compiler
  if (threadIdx.x % 32 == 0) cells[threadIdx.x / 32 + (kFault == kSharedOverrun)] = sum;
  if (kFault != kDivergentBarrier || threadIdx.x < 64) __syncthreads();
  if (threadIdx.x == 0) totals[blockIdx.x] = sums[0] + sums[1] + sums[2] + sums[3];
  const float value = kFault == kMissingBound || i < n ? x[i] : 0.f;
  int* count = &counts[static_cast<unsigned>(value) % 4];
  if (i < n && kFault == kRaceInBlock) *count += 1;
  if (i < n && kFault != kRaceInBlock) atomicAdd(count, 1);
  if (threadIdx.x == 0 && kFault == kRaceBetweenBlocks) counts[4] += 1;
  if (threadIdx.x == 0 && kFault != kRaceBetweenBlocks) atomicAdd(&counts[4], 1);
}

}  // namespace
}  // namespace pynas::cuda

namespace {

template <int kFault>
void run_planted() {
  const int n = 333, blocks = 3;
  const check::Buffer x(n * sizeof(float)), totals(blocks * sizeof(float)), counts(5 * sizeof(int));
  for (int i = 0; i < n; ++i) x.as<float>()[i] = static_cast<float>(i % 7);
  std::memset(counts.data(), 0, 5 * sizeof(int));
  pynas::cuda::launch(pynas::cuda::faulty_kernel<kFault>, dim3(blocks), dim3(128), 0, nullptr, x.as<float>(),
                      n, totals.as<float>(), counts.as<int>());
  int want[5] = {0, 0, 0, 0, blocks};
  for (int b = 0; b < blocks; ++b) {
    double total = 0;
    for (int i = b * 128; i < n && i < b * 128 + 128; ++i) {
      total += i % 7;
      ++want[i % 7 % 4];
    }
    check::expect_close("total", totals.as<float>()[b], total, 1e-3);
  }
  for (int k = 0; k < 5; ++k) check::expect_close("count", counts.as<int>()[k], want[k], 0);
}

}  // namespace

CASE(planted_none) { run_planted<kNone>(); }
CASE(planted_early_return) { run_planted<kEarlyReturn>(); }
CASE(planted_no_copy_wait) { run_planted<kNoCopyWait>(); }
CASE(planted_missing_barrier) { run_planted<kMissingBarrier>(); }
CASE(planted_shared_overrun) { run_planted<kSharedOverrun>(); }
CASE(planted_divergent_barrier) { run_planted<kDivergentBarrier>(); }
CASE(planted_missing_bound) { run_planted<kMissingBound>(); }
CASE(planted_race_in_block) { run_planted<kRaceInBlock>(); }
CASE(planted_race_between_blocks) { run_planted<kRaceBetweenBlocks>(); }
CASE(planted_shuffle_as_fence) { run_planted<kShuffleAsFence>(); }
