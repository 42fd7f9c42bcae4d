// What one call computes and where: the active candidates as a list of convolutions and normalised terms,
// their packed weights, and every thread's scratch, all in the caller's workspace.
#pragma once

#include <cstring>
#include <vector>

#include "ops/darts_edge/depthwise.h"
#include "ops/darts_edge/pointwise.h"
#include "ops/darts_edge/pools.h"
#include "ops/darts_edge/statistics.h"

namespace pynas::cpu::PYNAS_ISA_NS::darts {

// Every normalisation of an edge has a slot; those before kMaxPool are of convolutions.
enum Slot : int {
  kSep3First,
  kSep5First,
  kDil3,
  kDil5,
  kReduce,
  kSep3Second,
  kSep5Second,
  kMaxPool,
  kAvgPool,
  kSlots
};
constexpr int kConvolutions = kMaxPool;
constexpr int kSeparable = 2;  // separable candidates: the stages kSep*First lead to kSep*Second

struct SlotFacts {
  Candidate candidate;
  int stage, size, dilation;
};
// Of the candidate at stride 2, where skip_connect has a stage.
constexpr SlotFacts facts_of(Candidate candidate, int stage) {
  const CandidateStage& s = stages_of(candidate, Family::kDarts, 2).stages[stage];
  return {candidate, stage, s.kernel, s.dilation};
}
constexpr SlotFacts kFacts[kSlots] = {
    facts_of(Candidate::kSepConv3x3, 0),  facts_of(Candidate::kSepConv5x5, 0),
    facts_of(Candidate::kDilConv3x3, 0),  facts_of(Candidate::kDilConv5x5, 0),
    facts_of(Candidate::kSkipConnect, 0), facts_of(Candidate::kSepConv3x3, 1),
    facts_of(Candidate::kSepConv5x5, 1),  facts_of(Candidate::kMaxPool3x3, 0),
    facts_of(Candidate::kAvgPool3x3, 0),
};

PYNAS_INLINE bool is_second(int slot) { return slot == kSep3Second || slot == kSep5Second; }

struct Convolution {
  bool active = false;
  bool reduces = false;  // the factorised reduction
  int size = 0, dilation = 1, stride = 1;
  const DartsStage* stage = nullptr;
  float* depthwise = nullptr;  // [blocks, size, size, kL]
  Pointwise forward, backward;
};

struct Scratch {
  float* rectified = nullptr;         // padded planes: relu(x) or relu(BN(z_1))
  float* activations = nullptr;       // [blocks or twice as many, chunk pixels, kL]: what the product reads
  float* product_gradient = nullptr;  // [blocks, chunk pixels, kL]: dL/dz
  float* gradient = nullptr;          // padded planes: dL/d(depthwise output)
  float* image_gradient = nullptr;    // [blocks, pixels, kL]: dL/d(rectified), without padding
  PoolScratch pools;
  Prefetcher prefetch;
  Moments moments[kSlots];
  double* sums = nullptr;  // backward: [kSumRows, blocks, kL], see backward.h
  float* grad_depthwise[kConvolutions] = {};
  float* grad_pointwise[kConvolutions] = {};
};
constexpr int kSumRows = kSlots + 2 + kSeparable;

struct Plan {
  const DartsEdgeParams& p;
  const int threads;
  const int64_t blocks;
  const Shape in, out;
  const PaddedPlanes in_planes, out_planes;
  int64_t chunk_rows = 1;   // output rows that go from depthwise convolution to product through the L1 cache
  int64_t chunk_plane = 0;  // floats from block to block in a chunk
  int64_t pixels = 0;       // of an output image
  bool identity = false;    // skip_connect at stride 1
  bool pools = false;
  bool active[kSlots] = {};
  Convolution convolutions[kConvolutions];
  Affine affine[kSlots];
  AffineGradient affine_gradient[kSlots];
  float* offset = nullptr;                 // [blocks, kL]: t_c
  float* inner_gradient[kSeparable] = {};  // [N, C / lanes, Ho Wo, lanes]: dL/d BN_1(z_1), already rectified
  int32_t* padded_offset = nullptr;        // [Ho Wo]: where a pixel lies in a padded plane, in floats
  std::vector<Scratch> scratch;

  Plan(const DartsEdgeParams& params, int thread_count, bool backward, Arena arena)
      : p(params),
        threads(thread_count),
        blocks(ceil_div(params.channels, kL)),
        in{params.height, params.width},
        out{ceil_div(params.height, params.stride), ceil_div(params.width, params.stride)},
        in_planes(in),
        out_planes(out),
        scratch(static_cast<size_t>(thread_count)) {
    pixels = out.pixels();
    chunk_rows = most(1, least(out.height, 4096 / (out.width * blocks * kL)));
    chunk_plane = chunk_rows * out.width * kL;
    identity = p.stride == 1 && candidate(Candidate::kSkipConnect).weight != 0.0f;
    for (int slot = 0; slot < kSlots; ++slot)
      active[slot] = candidate(kFacts[slot].candidate).weight != 0.0f && !(slot == kReduce && p.stride == 1);
    pools = active[kMaxPool] || active[kAvgPool];
    place(arena, backward);
    bytes_ = arena.bytes();
  }

  int64_t bytes() const { return bytes_; }
  const DartsCandidateParams& candidate(Candidate which) const {
    return p.candidates[static_cast<int64_t>(which)];
  }
  float weight(int slot) const { return candidate(kFacts[slot].candidate).weight; }
  const DartsStage& stage(int slot) const {
    return candidate(kFacts[slot].candidate).stages[kFacts[slot].stage];
  }
  int lanes(int64_t block) const { return block_lanes(p.channels, block); }

  // Where a block of sample n begins, in floats: in an image in channels_last ...
  int64_t image_at(const Shape& shape, int64_t n, int64_t block) const {
    return n * shape.pixels() * p.channels + block * kL;
  }
  // ... and in a product, where its pixels of lanes(block) floats lie one behind the other.
  int64_t product_at(int64_t n, int64_t block) const { return (n * p.channels + block * kL) * pixels; }

  // Writes the weights in the order of the kernels. The product of the factorised reduction has twice as many
  // input channels: i stands for channel i of the even pixels, blocks * kL + i for channel i of the odd ones.
  void pack(bool backward) const {
    for (const Convolution& conv : convolutions) {
      if (!conv.active) continue;
      const int64_t C = p.channels, half = C / 2, width = blocks * kL;
      const DartsStage& s = *conv.stage;
      const auto weight = [&](int64_t o, int64_t i) {
        const int64_t c = i % width;
        if (o >= C || c >= C) return 0.0f;
        if (!conv.reduces) return s.pointwise[o * C + i];
        if ((i < width) != (o < half)) return 0.0f;
        return i < width ? s.pointwise[o * C + c] : s.pointwise_2[(o - half) * C + c];
      };
      conv.forward.pack(weight);
      if (backward) conv.backward.pack([&](int64_t i, int64_t o) { return weight(o, i); });
      const int64_t taps = conv.reduces ? 0 : conv.size * conv.size;
      for (int64_t c = 0; c < width; ++c)
        for (int64_t k = 0; k < taps; ++k)
          conv.depthwise[(c / kL * taps + k) * kL + c % kL] = c < C ? s.depthwise[c * taps + k] : 0.0f;
    }
    for (int64_t i = 0; i < (padded_offset ? pixels : 0); ++i)
      padded_offset[i] = static_cast<int32_t>(out_planes.row(i / out.width) + i % out.width * kL);
  }

  // One sweep over the samples: start(scratch) once per thread, then
  // body(scratch, sample, next sample or -1). A thread has the same samples in every sweep, and every other
  // sweep goes backwards: it starts with what the one before it left in the cache.
  template <class Start, class Body>
  void sweep(const Parallel& parallel, Start start, Body body) {
    parallel(threads, 1, [&](int64_t from, int64_t to) {
      for (int64_t t = from; t < to; ++t) {
        Scratch& s = scratch[static_cast<size_t>(t)];
        const int64_t first = p.samples * t / threads, last = p.samples * (t + 1) / threads;
        s.prefetch.clear();
        start(s);
        for (int64_t i = first; i < last; ++i) {
          const int64_t n = backwards_ ? first + last - 1 - i : i;
          body(s, n, i + 1 == last ? -1 : backwards_ ? n - 1 : n + 1);
        }
      }
    });
    backwards_ = !backwards_;
  }

 private:
  void place(Arena& arena, bool backward) {
    const int64_t width = blocks * kL;
    for (int slot = 0; slot < kConvolutions; ++slot) {
      Convolution& conv = convolutions[slot];
      conv.active = active[slot];
      if (!conv.active) continue;
      conv.reduces = slot == kReduce;
      conv.size = kFacts[slot].size;
      conv.dilation = kFacts[slot].dilation;
      conv.stride = is_second(slot) ? 1 : p.stride;
      conv.stage = &stage(slot);
      const int64_t images = conv.reduces ? 2 : 1;
      conv.forward = {nullptr, p.channels, images * blocks, blocks};
      conv.backward = {nullptr, p.channels, blocks, images * blocks};
      conv.depthwise = arena.take<float>(width * conv.size * conv.size);
      conv.forward.packed = arena.take<float>(conv.forward.size());
      if (backward) conv.backward.packed = arena.take<float>(conv.backward.size());
    }
    for (int slot = 0; slot < kSlots; ++slot) {
      if (!active[slot]) continue;
      affine[slot].place(arena, blocks);
      if (backward) affine_gradient[slot].place(arena, blocks);
    }
    offset = arena.take<float>(width);
    if (backward) {
      padded_offset = arena.take<int32_t>(pixels);
      for (int i = 0; i < kSeparable; ++i)
        if (active[i]) inner_gradient[i] = arena.take<float>(p.samples * p.channels * pixels);
    }
    for (Scratch& s : scratch) place(arena, backward, s);
  }
  void place(Arena& arena, bool backward, Scratch& s) {
    const int64_t width = blocks * kL;
    s.rectified = arena.take<float>(blocks * most(in_planes.plane, out_planes.plane));
    s.activations = arena.take<float>((active[kReduce] ? 2 : 1) * blocks * chunk_plane);
    if (pools) s.pools.place(arena, in.width, out.width, backward);
    if (!backward) {
      for (int slot = 0; slot < kSlots; ++slot)
        if (active[slot]) s.moments[slot].place(arena, blocks);
      return;
    }
    s.product_gradient = arena.take<float>(blocks * chunk_plane);
    s.gradient = arena.take<float>(blocks * out_planes.plane);
    s.image_gradient = arena.take<float>(blocks * in.pixels() * kL);
    s.sums = arena.take<double>(kSumRows * width);
    for (int slot = 0; slot < kConvolutions; ++slot) {
      const Convolution& conv = convolutions[slot];
      if (!conv.active) continue;
      s.grad_depthwise[slot] = arena.take<float>(width * conv.size * conv.size);
      s.grad_pointwise[slot] = arena.take<float>(conv.forward.size());
    }
  }
  int64_t bytes_ = 0;
  bool backwards_ = false;
};

}  // namespace pynas::cpu::PYNAS_ISA_NS::darts
