// How the steps of sample_grad_cuda.h are put together: the plan, the workspace and the entry points.
#include <algorithm>
#include <stdexcept>

#include "ops/sample_grad/cuda/sample_grad_cuda.h"

namespace pynas::cuda {
namespace {

constexpr int64_t kSplitRows = 128;  // a row split shorter than this does not pay its own fold
constexpr int64_t kThinWeights = kTileElements / 4;  // with fewer weights a group leaves most of a tile empty

struct Plan {
  Layer layer;
  DType dtype;
  bool wide = false;    // float64
  bool direct = false;  // no tiles: thin grouped convolution
  bool fused = false;   // sink in registers, no raw gradients
  bool pack_grad_output = false, pack_input = false;
  MomentSlots slots;
  int splits = 1;    // fused: blocks that share the sample groups of a tile
  int64_t slab = 0;  // raw: tiles (direct: weights) at a time
  int64_t out_channels = 0;
  // Workspace offsets in bytes; the end of the last piece is the size.
  int64_t packed_grad_output = 0, packed_input = 0, bias_raw = 0, buffer = 0, gram = 0, bytes = 0;
};

MomentSlots moment_slots(uint32_t mask) {
  if ((mask & kMomentCentered) != 0) mask |= kMomentSum;
  MomentSlots slots;
  for (int bit = 0; bit < kNumMoments; ++bit) {
    if ((mask >> bit & 1u) != 0) slots.bit[slots.count++] = bit;
  }
  return slots;
}

// Whether a tensor already lies as the producers read it: channels last and, for tiles,
// in aligned vectors of 16 bytes.
bool lies_well(const void* data, const int64_t (&strides)[4], int64_t all_channels, int64_t channels,
               int64_t vector, bool direct) {
  if (data == nullptr || (strides[1] != 1 && all_channels != 1)) return false;
  if (direct) return true;
  const bool aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0;
  return aligned && channels % vector == 0 && strides[0] % vector == 0 && strides[2] % vector == 0 &&
         strides[3] % vector == 0;
}

ChannelsLast view(const void* data, const int64_t (&strides)[4], int channels) {
  return {data, strides[0], strides[2], strides[3], channels};
}

ChannelsLast packed_view(int64_t rows, int64_t columns, int groups, int channels) {
  const int64_t pixel = int64_t{groups} * channels;
  return {nullptr, rows * columns * pixel, columns * pixel, pixel, channels};
}

int checked_int(int64_t value) {
  if (value > 0x7fffffff)
    throw std::invalid_argument("sample_grad: a layer of 2^31 or more weights or rows a group");
  return static_cast<int>(value);
}

// Cuts a group's rows where there are too few groups and tiles to fill the GPU.
void split_rows(Layer& layer, int64_t blocks_per_unit, int64_t target, bool allowed) {
  const int64_t blocks = std::max<int64_t>(1, blocks_per_unit * layer.sample_groups);
  int64_t splits = std::min(ceil_div(target, blocks), ceil_div<int64_t, int64_t>(layer.rows, kSplitRows));
  splits = allowed ? std::max<int64_t>(1, splits) : 1;
  layer.split_rows = static_cast<int>(ceil_div(ceil_div<int64_t, int64_t>(layer.rows, splits), 32) * 32);
  layer.split_rows = std::max(32, layer.split_rows);
  layer.row_splits = std::max(1, ceil_div(layer.rows, layer.split_rows));
}

Plan make_plan(const SampleGradParams& p) {
  Plan plan;
  plan.dtype = p.dtype;
  plan.wide = p.dtype == DType::kFloat64;
  plan.out_channels = p.out_channels;
  const int taps = checked_int(p.kernel[0] * p.kernel[1]);
  checked_int(p.out_channels * p.group_channels() * taps);
  plan.direct = p.groups > 1 && p.group_out_channels() * p.group_channels() * taps < kThinWeights;

  const int64_t bytes = dtype_bytes(p.dtype), vector = plan.direct ? 1 : 16 / bytes;
  const int out_padded = static_cast<int>(ceil_div(p.group_out_channels(), vector) * vector);
  const int in_padded = static_cast<int>(ceil_div(p.group_channels(), vector) * vector);
  plan.pack_grad_output = !lies_well(p.grad_output, p.grad_output_strides, p.out_channels,
                                     p.group_out_channels(), vector, plan.direct);
  plan.pack_input =
      !lies_well(p.input, p.input_strides, p.in_channels, p.group_channels(), vector, plan.direct);

  Layer& layer = plan.layer;
  const int groups = static_cast<int>(p.groups);
  layer.grad_output = plan.pack_grad_output ? packed_view(p.out_height, p.out_width, groups, out_padded)
                                            : view(p.grad_output, p.grad_output_strides, out_padded);
  layer.input = plan.pack_input ? packed_view(p.height, p.width, groups, in_padded)
                                : view(p.input, p.input_strides, in_padded);
  layer.sample_groups = checked_int(p.sample_groups());
  layer.group_size = static_cast<int>(p.group_size);
  layer.positions = checked_int(p.out_height * p.out_width);
  layer.rows = checked_int(p.group_size * layer.positions);
  layer.height = static_cast<int>(p.height);
  layer.width = static_cast<int>(p.width);
  layer.out_width = static_cast<int>(p.out_width);
  layer.stride_y = static_cast<int>(p.stride[0]);
  layer.stride_x = static_cast<int>(p.stride[1]);
  layer.padding_y = static_cast<int>(p.padding[0]);
  layer.padding_x = static_cast<int>(p.padding[1]);
  layer.dilation_y = static_cast<int>(p.dilation[0]);
  layer.dilation_x = static_cast<int>(p.dilation[1]);
  layer.kernel_width = static_cast<int>(p.kernel[1]);
  layer.taps = taps;
  layer.conv_groups = groups;
  layer.group_out_channels = static_cast<int>(p.group_out_channels());
  layer.group_channels = static_cast<int>(p.group_channels());
  layer.row_tiles = ceil_div(layer.group_out_channels, kTile);
  layer.column_tiles = ceil_div(checked_int(int64_t{taps} * in_padded), kTile);
  layer.by_positions = Divider(static_cast<uint32_t>(std::max(1, layer.positions)));
  layer.by_out_width = Divider(static_cast<uint32_t>(std::max(1, layer.out_width)));

  const bool gram = p.sink == SampleGradSink::kGram, moments = p.sink == SampleGradSink::kMoments;
  const int64_t blocks = plan.direct ? ceil_div(layer.weights(), 32) : layer.tiles();
  split_rows(layer, blocks, plan.direct ? 4 * kTargetBlocks : kTargetBlocks, !gram);
  plan.fused = !plan.wide && !plan.direct && !gram && layer.row_splits == 1;
  plan.slots = moment_slots(p.moments);
  plan.splits = static_cast<int>(
      std::min<int64_t>(layer.sample_groups, ceil_div(kTargetBlocks, std::max<int64_t>(1, blocks))));
  if (moments) plan.splits = std::max(1, plan.splits);

  const int64_t sum_bytes = plan.wide ? 8 : 4, units = layer.units();
  const int64_t cell_bytes = std::max<int64_t>(1, units) * sum_bytes * (plan.direct ? 1 : kTileElements);
  const int64_t cells = plan.direct ? layer.weights() : layer.tiles();
  plan.slab =
      std::clamp<int64_t>(kSlabBytes / cell_bytes, plan.direct ? 32 : 1, std::max<int64_t>(32, cells));
  plan.slab = std::min(plan.slab, cells);

  auto reserve = [&](int64_t size) {
    const int64_t offset = plan.bytes;
    plan.bytes += ceil_div(size, 256) * 256;
    return offset;
  };
  if (plan.pack_grad_output) plan.packed_grad_output = reserve(p.batch * layer.grad_output.batch * bytes);
  if (plan.pack_input) plan.packed_input = reserve(p.batch * layer.input.batch * bytes);
  if (p.with_bias) plan.bias_raw = reserve(units * p.out_channels * sum_bytes);
  if (!plan.fused) {
    plan.buffer = reserve(plan.slab * cell_bytes);
  } else if (moments) {
    plan.buffer = reserve(layer.tiles() * kTileElements * plan.splits * plan.slots.count * sum_bytes);
  } else {
    plan.buffer = reserve(layer.tiles() * kTileWarps * layer.sample_groups * sum_bytes);
  }
  if (gram) {
    plan.gram = reserve(int64_t{gram_splits(layer.sample_groups)} * layer.sample_groups *
                        layer.sample_groups * sum_bytes);
  }
  return plan;
}

ElementMap element_map(const Layer& layer, ElementMap::Kind kind, int64_t first, int64_t size) {
  ElementMap map{};
  map.kind = kind;
  map.first = first;
  map.size = size;
  map.taps = layer.taps;
  map.group_channels = layer.group_channels;
  map.group_out_channels = layer.group_out_channels;
  map.out_channels = layer.conv_groups * layer.group_out_channels;
  map.padded_channels = layer.input.channels;
  map.row_tiles = layer.row_tiles;
  map.column_tiles = layer.column_tiles;
  map.by_taps = Divider(static_cast<uint32_t>(std::max(1, layer.taps)));
  map.by_channels = Divider(static_cast<uint32_t>(std::max(1, layer.group_channels)));
  map.by_group_out = Divider(static_cast<uint32_t>(std::max(1, layer.group_out_channels)));
  return map;
}

class Run {
 public:
  Run(const SampleGradParams& params, cudaStream_t stream)
      : p_(params), plan_(make_plan(params)), stream_(stream), layer_(plan_.layer) {}

  void operator()() {
    pack_inputs();
    if (p_.with_bias) bias_to_raw(layer_, plan_.dtype, at(plan_.bias_raw), stream_);
    if (p_.sink == SampleGradSink::kMoments) moments();
    if (p_.sink == SampleGradSink::kNorms) norms();
    if (p_.sink == SampleGradSink::kGram) gram();
  }

 private:
  void* at(int64_t offset) const { return static_cast<char*>(p_.workspace) + offset; }

  void pack_inputs() {
    const int64_t bytes = dtype_bytes(plan_.dtype);
    if (plan_.pack_grad_output) {
      layer_.grad_output.data = at(plan_.packed_grad_output);
      pack(p_.grad_output, at(plan_.packed_grad_output), bytes, p_.batch, p_.out_height, p_.out_width,
           layer_.conv_groups, layer_.group_out_channels, layer_.grad_output.channels, p_.grad_output_strides,
           stream_);
    }
    if (plan_.pack_input) {
      layer_.input.data = at(plan_.packed_input);
      pack(p_.input, at(plan_.packed_input), bytes, p_.batch, p_.height, p_.width, layer_.conv_groups,
           layer_.group_channels, layer_.input.channels, p_.input_strides, stream_);
    }
  }

  // Produces the raw gradients slab by slab, and after each calls consume(kind, first element, elements).
  template <class F>
  void for_slabs(F&& consume) {
    const int64_t cells = plan_.direct ? layer_.weights() : layer_.tiles();
    for (int64_t first = 0; first < cells; first += plan_.slab) {
      const int64_t count = std::min(plan_.slab, cells - first);
      if (plan_.direct) {
        direct_to_raw(layer_, plan_.dtype, first, count, at(plan_.buffer), stream_);
        consume(ElementMap::kDirect, first, count);
      } else {
        tiles_to_raw(layer_, plan_.dtype, p_.allow_tf32, first, count, at(plan_.buffer), stream_);
        consume(ElementMap::kTiles, first * kTileElements, count * kTileElements);
      }
    }
  }

  void moments() {
    const int groups = layer_.sample_groups;
    if (p_.with_bias) {
      const ElementMap map = element_map(layer_, ElementMap::kBias, 0, plan_.out_channels);
      fold_moments(map, plan_.wide, at(plan_.bias_raw), groups, layer_.row_splits, plan_.out_channels,
                   p_.moments, p_.bias, stream_);
    }
    if (plan_.fused) {
      auto* partial = static_cast<float*>(at(plan_.buffer));
      tiles_to_moments(layer_, plan_.dtype, p_.allow_tf32, plan_.slots, plan_.splits, partial, stream_);
      const ElementMap map = element_map(layer_, ElementMap::kTiles, 0, layer_.tiles() * kTileElements);
      merge_moments(map, plan_.slots, partial, plan_.splits, groups, layer_.weights(), p_.moments,
                    static_cast<float*>(p_.weight), stream_);
      return;
    }
    for_slabs([&](ElementMap::Kind kind, int64_t first, int64_t size) {
      fold_moments(element_map(layer_, kind, first, size), plan_.wide, at(plan_.buffer), groups,
                   layer_.row_splits, layer_.weights(), p_.moments, p_.weight, stream_);
    });
  }

  void norms() {
    bool first = true;
    auto add = [&](bool squared, const void* values, int splits, int64_t size) {
      add_norms(plan_.wide, squared, first, values, layer_.sample_groups, splits, size, p_.weight, stream_);
      first = false;
    };
    if (plan_.fused) {
      auto* partial = static_cast<float*>(at(plan_.buffer));
      tiles_to_norms(layer_, plan_.dtype, p_.allow_tf32, plan_.splits, partial, stream_);
      add(false, partial, 1, layer_.tiles() * kTileWarps);
    } else {
      for_slabs([&](ElementMap::Kind, int64_t, int64_t size) {
        add(true, at(plan_.buffer), layer_.row_splits, size);
      });
    }
    if (p_.with_bias) add(true, at(plan_.bias_raw), layer_.row_splits, plan_.out_channels);
    if (first) add(true, nullptr, 1, 0);  // no weights at all: zeros
  }

  void gram() {
    bool first = true;
    auto add = [&](const void* raw, int64_t size) {
      add_gram(plan_.wide, first, raw, layer_.sample_groups, size, at(plan_.gram), stream_);
      first = false;
    };
    for_slabs([&](ElementMap::Kind, int64_t, int64_t size) { add(at(plan_.buffer), size); });
    if (p_.with_bias) add(at(plan_.bias_raw), plan_.out_channels);
    finish_gram(plan_.wide, !first, at(plan_.gram), layer_.sample_groups, p_.weight, stream_);
  }

  const SampleGradParams& p_;
  Plan plan_;
  cudaStream_t stream_;
  Layer& layer_;
};

}  // namespace

void sample_grad_workspace(const SampleGradParams& params, size_t& bytes) {
  bytes = static_cast<size_t>(make_plan(params).bytes);
}

void sample_grad(const SampleGradParams& params, void* stream) {
  Run(params, static_cast<cudaStream_t>(stream))();
}

}  // namespace pynas::cuda
