// Codes of activations and their agreement: see activation_codes.h for the formulas.
#include "common/visit.h"
#include "ops/activation_codes/activation_codes.h"

namespace pynas::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kMaxBlocks = 132 * 8;  // a full H100; the rest by striding
constexpr int kUnroll = 4;               // words of a warp at a time, so that eight loads are in flight

// Block: 8 warps striding over the words of all rows together.
// Thread: values lane and 32 + lane of each of the kUnroll words of its warp.
// Roofline: bytes(x) / 3.35 TB/s; codes are a 32nd of float32's bytes.
// Design: a ballot puts 32 neighbouring comparisons into the bits of an integer, so nothing is shifted.
template <class T>
__global__ void __launch_bounds__(kThreads)
    pack_kernel(const T* __restrict__ x, int64_t words, int64_t features, int64_t stride,
                uint64_t* __restrict__ codes) {
  const int lane = threadIdx.x % 32;
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  for (int64_t first = warp * kUnroll; first < words; first += int64_t{gridDim.x} * kWarps * kUnroll) {
    bool positive[2 * kUnroll];
    for (int k = 0; k < 2 * kUnroll; ++k) {
      const int64_t word = first + k / 2, row = word / stride;
      const int64_t feature = (word - row * stride) * 64 + k % 2 * 32 + lane;
      positive[k] = word < words && feature < features && to_accumulate(x[row * features + feature]) > 0;
    }
    for (int k = 0; k < kUnroll; ++k) {
      const uint64_t low = __ballot_sync(0xffffffffu, positive[2 * k]);
      const uint64_t high = __ballot_sync(0xffffffffu, positive[2 * k + 1]);
      if (lane == k && first + k < words) codes[first + k] = high << 32 | low;
    }
  }
}

constexpr int kTile = 32;   // rows of a block, on either side
constexpr int kChunk = 16;  // words of a row in shared memory at a time

// Block: 32 x 32 pairs of rows on or above the diagonal (blockIdx.x counts them), and the words of part
//   blockIdx.y.
// Thread: 2 x 2 pairs, 16 apart.
// Roofline: batch^2 / 2 words bit counts of 64-bit words, at 8 a cycle and multiprocessor.
// Design: integers add up in any order, so parts meet in atomics and the result is the same every time; with
//   2 x 2 pairs a word of shared memory serves two counts.
__global__ void __launch_bounds__(kThreads)
    agreement_kernel(const uint64_t* __restrict__ codes, int64_t batch, int64_t words, int64_t stride,
                     int64_t part, int64_t features, int64_t times,
                     unsigned long long* __restrict__ agreement) {
  SHARED(uint64_t, left, [kTile][kChunk + 1]);
  SHARED(uint64_t, right, [kTile][kChunk + 1]);
  const int64_t tiles = ceil_div(batch, kTile);
  int64_t i_tile = 0, behind = blockIdx.x;
  while (behind >= tiles - i_tile) behind -= tiles - i_tile++;
  const int64_t i_first = i_tile * kTile, j_first = (i_tile + behind) * kTile;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int64_t begin = int64_t{blockIdx.y} * part, end = min(words, begin + part);
  int64_t differing[2][2] = {};
  for (int64_t chunk = begin; chunk < end; chunk += kChunk) {
    for (int k = threadIdx.x; k < kTile * kChunk; k += kThreads) {
      const int row = k / kChunk, column = k % kChunk;
      const int64_t word = chunk + column;
      const bool inside = word < end;
      left[row][column] = inside && i_first + row < batch ? codes[(i_first + row) * stride + word] : 0;
      right[row][column] = inside && j_first + row < batch ? codes[(j_first + row) * stride + word] : 0;
    }
    __syncthreads();
    for (int column = 0; column < kChunk; ++column) {
      const uint64_t own[2] = {left[ty][column], left[ty + 16][column]};
      const uint64_t other[2] = {right[tx][column], right[tx + 16][column]};
      for (int a = 0; a < 2; ++a) {
        for (int b = 0; b < 2; ++b) differing[a][b] += __popcll(own[a] ^ other[b]);
      }
    }
    __syncthreads();
  }
  for (int a = 0; a < 2; ++a) {
    for (int b = 0; b < 2; ++b) {
      const int64_t i = i_first + ty + 16 * a, j = j_first + tx + 16 * b;
      if (i >= batch || j >= batch) continue;
      const int64_t agreeing = times * ((blockIdx.y == 0 ? features : 0) - differing[a][b]);
      atomicAdd(&agreement[i * batch + j], static_cast<unsigned long long>(agreeing));
      if (behind != 0) atomicAdd(&agreement[j * batch + i], static_cast<unsigned long long>(agreeing));
    }
  }
}

}  // namespace

void activation_codes(const ActivationCodesParams& p, void* stream) {
  const int64_t words = p.batch * p.stride;
  if (words == 0) return;
  const int64_t blocks = min(ceil_div(words, kWarps * kUnroll), kMaxBlocks);
  visit_dtype(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(pack_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0,
           static_cast<cudaStream_t>(stream), static_cast<const T*>(p.x), words, p.features, p.stride,
           p.codes);
  });
}

void code_agreement(const CodeAgreementParams& p, void* stream) {
  if (p.batch == 0) return;
  const int64_t tiles = ceil_div(p.batch, kTile), pairs = tiles * (tiles + 1) / 2;
  // Enough parts that the blocks fill a GPU twice over, of whole chunks.
  const int64_t parts = max(int64_t{1}, min(ceil_div(p.words, kChunk), ceil_div(2 * 132, pairs)));
  const int64_t part = max(int64_t{1}, ceil_div(ceil_div(p.words, kChunk), parts)) * kChunk;
  launch(agreement_kernel, dim3(static_cast<unsigned>(pairs), static_cast<unsigned>(parts)), dim3(kThreads),
         0, static_cast<cudaStream_t>(stream), p.codes, p.batch, p.words, p.stride, part, p.features, p.times,
         reinterpret_cast<unsigned long long*>(p.agreement));
}

}  // namespace pynas::cuda
