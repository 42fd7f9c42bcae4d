// How one call is carried out: the layout of packed samples, the list of register tiles, and how the work is
// divided between threads. Integers only. Include only from sample_grad_cpu.cpp, once per instruction set.
#pragma once

#include <cstdlib>
#include <cstring>

#include "common/math.h"
#include "ops/sample_grad/cpu/tile.h"
#include "ops/sample_grad/sample_grad.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

enum class Layout {
  kTaps,       // lanes are input channels, a column is (channel block, tap)
  kPatches,    // few channels a group: lanes run over (channel, tap), a patch of the image for each position
  kDepthwise,  // one channel a group: lanes are convolution groups, a vector is a tap
};

// What is divided between the threads.
enum class Split {
  kSamples,      // sample groups: each thread keeps moments of all weights, merged at the end
  kWithinGroup,  // the samples of a group: each thread keeps a part of its gradient, added up group by group
  kWeights,      // weights: all samples are packed beforehand, moments of a few weights are finished in cache
};

constexpr int64_t kMaxBatch = 4;

struct Range {
  int64_t begin, end;
  int64_t size() const { return most(end - begin, 0); }
};
// Part i of n of [0, total).
constexpr Range part(int64_t total, int64_t n, int64_t i) { return {total * i / n, total * (i + 1) / n}; }

// The tiles of one block of output channels and one chunk of input channels, with all taps. Sums lie in
// memory as vectors [group][chunk][out_block][tap][block of the chunk][output of the block].
struct Bundle {
  int64_t group, first_block, blocks, out_block;
  int64_t first_vector;  // in that order
};

struct Tile {
  int64_t first_column, columns;  // column = tap * bundle.blocks + block
};

struct Plan {
  SampleGradParams p;  // with batch and positions merged where a linear layer allows it
  Layout layout = Layout::kTaps;
  Split split = Split::kSamples;
  int64_t lanes = 0;
  int64_t tile_outputs = kOutputs;  // vectors a column; 1 for depthwise

  // The convolution that the tiles see; a 1x1 one over patches.
  int64_t height = 0, width = 0;
  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1};
  int64_t taps = 1;
  int64_t conv_groups = 1;
  int64_t row = 0;         // what the lanes of a group run over: channels, or channels x taps
  int64_t blocks = 0;      // vectors of lanes in `row`
  int64_t chunks = 0;      // bundles along `row`
  int64_t out_blocks = 0;  // bundles along output channels
  int64_t row_tiles = 0;   // > 0: tiles mix the taps of a kernel row, this many tiles a row

  // Element (b, block, h, w) of an operand lies at b * sample + block * plane + h * row + w * col.
  struct Packed {
    bool direct = false;  // used where it lies, not packed
    int64_t sample = 0, plane = 0, row = 0, col = 0;
  };
  Packed x, d;
  int64_t x_pad[2] = {0, 0};  // zero columns left and right of the image

  int64_t sample_groups = 0, group_size = 1;
  int64_t block_samples = 1;  // samples packed at a time
  int64_t tile_batch = 1;     // tiles formed of one sample group before the next, while its rows are in cache

  int64_t bundles() const { return conv_groups * chunks * out_blocks; }
  int64_t vectors() const { return conv_groups * blocks * out_blocks * taps * tile_outputs; }
  int64_t bundle_vectors(const Bundle& b) const { return b.blocks * taps * tile_outputs; }
  int64_t max_bundle_vectors() const { return ceil_div(blocks, most(chunks, 1)) * taps * tile_outputs; }
  int64_t max_batch_vectors() const {
    return layout == Layout::kDepthwise ? tile_batch * taps : tile_batch * kColumns * tile_outputs;
  }
  int64_t positions() const { return p.out_height * p.out_width; }
  // The part of a padded image that any patch touches.
  int64_t patch_rows() const {
    return (p.out_height - 1) * p.stride[0] + (p.kernel[0] - 1) * p.dilation[0] + 1;
  }
  int64_t patch_cols() const {
    return (p.out_width - 1) * p.stride[1] + (p.kernel[1] - 1) * p.dilation[1] + 1;
  }
  int64_t padded_out_channels() const { return ceil_div(p.out_channels, lanes) * lanes; }

  Bundle bundle(int64_t i) const {
    const int64_t out_block = i % out_blocks, chunk = i / out_blocks % chunks,
                  group = i / (out_blocks * chunks);
    const Range range = part(blocks, chunks, chunk);
    const int64_t first = ((group * blocks + range.begin) * out_blocks + out_block * range.size()) * taps;
    return {group, range.begin, range.size(), out_block, first * tile_outputs};
  }
  int64_t tiles() const {
    return layout == Layout::kDepthwise ? 1 : row_tiles > 0 ? kernel[0] * row_tiles : taps;
  }
  Tile tile(const Bundle& b, int64_t i) const {
    if (layout == Layout::kDepthwise) return {0, taps};
    if (row_tiles == 0) return {i * b.blocks, b.blocks};
    const int64_t columns = kernel[1] * b.blocks;
    const Range range = part(columns, row_tiles, i % row_tiles);
    return {i / row_tiles * columns + range.begin, range.size()};
  }
  // Output positions along `axis` whose input under `tap` lies inside the image.
  Range valid(int axis, int64_t tap) const {
    const int64_t size = axis == 0 ? height : width, outputs = axis == 0 ? p.out_height : p.out_width;
    const int64_t shift = padding[axis] - tap * dilation[axis], last = shift + size - 1;
    const int64_t begin = shift > 0 ? ceil_div(shift, stride[axis]) : 0;
    return {begin, last < 0 ? 0 : least(outputs, last / stride[axis] + 1)};
  }
  // Lanes of a block, and outputs of a bundle, that are weights rather than slack.
  int64_t used_lanes(int64_t block) const { return least(lanes, row - block * lanes); }
  int64_t used_outputs(const Bundle& b) const {
    return layout == Layout::kDepthwise ? 1
                                        : least(kOutputs, p.group_out_channels() - b.out_block * kOutputs);
  }
};

// A linear layer sums over positions as over samples: m samples of T positions are one of m T positions.
inline SampleGradParams merge_positions(SampleGradParams p) {
  const bool linear = p.height == 1 && p.out_height == 1 && p.kernel[0] == 1 && p.kernel[1] == 1 &&
                      p.groups == 1 && p.padding[0] == 0 && p.padding[1] == 0 && p.stride[0] == 1 &&
                      p.stride[1] == 1;
  if (!linear || p.group_size == 1) return p;
  const auto mergeable = [&p](const int64_t* strides) {
    return p.width == 1 || strides[0] == p.width * strides[3];
  };
  if (!mergeable(p.input_strides) || !mergeable(p.grad_output_strides)) return p;
  for (int64_t* strides : {p.input_strides, p.grad_output_strides}) {
    if (p.width == 1) strides[3] = strides[0];
    strides[0] *= p.group_size;
  }
  p.width = p.out_width = p.width * p.group_size;
  p.batch /= p.group_size;
  p.group_size = 1;
  return p;
}

inline void choose_layout(Plan& plan, size_t element) {
  const SampleGradParams& p = plan.p;
  const int64_t channels = p.group_channels(), taps = p.kernel[0] * p.kernel[1];
  const int64_t lanes = plan.lanes;
  if (channels == 1 && p.groups > 1 && p.groups * 2 > lanes) {
    plan.layout = Layout::kDepthwise;
    plan.tile_outputs = 1;
  } else if (4 * ceil_div(channels * taps, lanes) < 3 * ceil_div(channels, lanes) * taps) {
    plan.layout = Layout::kPatches;  // a quarter fewer vectors pays for gathering the patches
  }
  plan.height = p.height;
  plan.width = p.width;
  plan.taps = taps;
  plan.conv_groups = p.groups;
  plan.row = channels;
  if (plan.layout == Layout::kPatches) {
    plan.height = p.out_height;
    plan.width = p.out_width;
    plan.taps = 1;
    plan.row = channels * taps;
  } else {
    for (int axis = 0; axis < 2; ++axis) {
      plan.kernel[axis] = p.kernel[axis];
      plan.stride[axis] = p.stride[axis];
      plan.padding[axis] = p.padding[axis];
      plan.dilation[axis] = p.dilation[axis];
    }
  }
  plan.out_blocks = ceil_div(p.group_out_channels(), kOutputs);
  if (plan.layout == Layout::kDepthwise) {
    plan.conv_groups = 1;
    plan.row = p.groups;
    plan.out_blocks = p.group_out_channels();
  }
  plan.blocks = ceil_div(plan.row, lanes);
  plan.chunks = ceil_div(plan.blocks, kColumns);

  // Tiles of one tap sum over exactly the positions inside the image. Where one tap has too few columns to
  // keep the multiply-add units busy (they need 8 sums), tiles take several taps of a kernel row, over
  // zero-padded rows.
  const bool mixed = plan.layout == Layout::kTaps && plan.kernel[1] > 1 && plan.blocks * kOutputs < 8;
  if (mixed || plan.layout == Layout::kDepthwise) plan.chunks = plan.blocks;
  if (mixed) plan.row_tiles = ceil_div(plan.kernel[1], kColumns);
  plan.tile_batch = taps == 1 ? kMaxBatch : least(plan.kernel[1], kMaxBatch);
  if (mixed || plan.layout == Layout::kDepthwise) {
    const int64_t reach = (p.out_width - 1) * plan.stride[1] + (plan.kernel[1] - 1) * plan.dilation[1];
    plan.x_pad[0] = plan.padding[1];
    plan.x_pad[1] = most(reach - plan.padding[1] - (plan.width - 1), 0);
  }

  // Channels-last operands of the right type can be read where they lie, unless pixels lie so far apart that
  // they compete for the same few lines of the cache.
  const int64_t element_type = p.dtype == DType::kFloat64 ? 8 : p.dtype == DType::kFloat32 ? 4 : 2;
  const auto near = [&](const int64_t* strides) {
    return element_type == static_cast<int64_t>(element) && strides[1] == 1 &&
           strides[3] * element_type <= 256;
  };
  plan.x.direct = plan.layout == Layout::kTaps && taps == 1 && near(p.input_strides) && channels % lanes == 0;
  if (plan.x.direct) {
    plan.x = {true, p.input_strides[0], lanes, p.input_strides[2], p.input_strides[3]};
  } else {
    const int64_t cols = plan.x_pad[0] + plan.width + plan.x_pad[1];
    const int64_t plane = plan.height * cols * lanes;
    plan.x = {false, plane * plan.blocks * plan.conv_groups, plane, cols * lanes, lanes};
    if (plan.layout == Layout::kPatches && plan.positions() > 0) {  // and the image, read in whole vectors
      plan.x.sample += ceil_div(channels * plan.patch_rows() * plan.patch_cols(), lanes) * lanes + lanes;
    }
  }
  const int64_t d_lanes = plan.layout == Layout::kDepthwise ? lanes : kOutputs;
  plan.d.direct = (taps == 1 || plan.layout != Layout::kTaps) && near(p.grad_output_strides) &&
                  (plan.layout == Layout::kDepthwise ? plan.out_blocks == 1 && p.groups % lanes == 0
                                                     : p.group_out_channels() % kOutputs == 0);
  if (plan.d.direct) {
    plan.d = {true, p.grad_output_strides[0], d_lanes, p.grad_output_strides[2], p.grad_output_strides[3]};
  } else {
    const int64_t plane = plan.positions() * d_lanes;
    const int64_t planes = plan.layout == Layout::kDepthwise ? plan.blocks * plan.out_blocks
                                                             : plan.conv_groups * plan.out_blocks;
    plan.d = {false, plane * planes, plane, p.out_width * d_lanes, d_lanes};
  }
}

// PYNAS_SAMPLE_GRAD_SPLIT=samples|within|weights overrides the choice, for tests and measurements.
inline bool forced_split(Split& split) {
  const char* name = std::getenv("PYNAS_SAMPLE_GRAD_SPLIT");
  if (name == nullptr) return false;
  if (std::strcmp(name, "samples") == 0)
    split = Split::kSamples;
  else if (std::strcmp(name, "within") == 0)
    split = Split::kWithinGroup;
  else if (std::strcmp(name, "weights") == 0)
    split = Split::kWeights;
  else
    return false;
  return true;
}

inline void choose_split(Plan& plan, int threads, int rows, size_t element) {
  const int64_t size = static_cast<int64_t>(element);
  const int64_t packed = ((plan.x.direct ? 0 : plan.x.sample) + (plan.d.direct ? 0 : plan.d.sample)) * size;
  const int64_t gradient = plan.vectors() * plan.lanes * size;
  // Samples packed at a time stay in L2, unless the sums outgrow it anyway.
  const int64_t fit = gradient * rows > (512 << 10) ? 2 << 20 : 256 << 10;
  plan.block_samples = most(1, least(fit / most(packed, 1), 4));

  const bool large_groups = plan.group_size > 4 || plan.sample_groups < threads;
  if (plan.p.sink == SampleGradSink::kGram) {
    plan.split = Split::kWeights;  // every pair of groups meets in every tile
  } else if (!forced_split(plan.split)) {
    if (plan.p.sink == SampleGradSink::kNorms) rows = 0;
    // Sums that outgrow a core's cache move through memory once for every block of samples: negligible beside
    // the products where there are many positions, more expensive than they are where there are few.
    const int64_t sums = gradient * (large_groups ? 1 : rows);
    const bool keep =
        sums <= (1 << 20) || (plan.positions() >= 64 && sums <= (6 << 20)) || plan.positions() >= 512;
    plan.split = !keep ? Split::kWeights : large_groups ? Split::kWithinGroup : Split::kSamples;
  }
  if (plan.split == Split::kWithinGroup) plan.block_samples = most(1, least(fit / most(packed, 1), 16));
}

template <class T>
Plan make_plan(const SampleGradParams& params, int threads, int moment_rows) {
  Plan plan;
  plan.p = merge_positions(params);
  plan.lanes = kLanes<T>;
  plan.sample_groups = plan.p.sample_groups();
  plan.group_size = plan.p.group_size;
  choose_layout(plan, sizeof(T));
  choose_split(plan, threads, moment_rows, sizeof(T));
  return plan;
}

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
