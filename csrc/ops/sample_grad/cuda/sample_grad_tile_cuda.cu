// Weight gradients of sample groups on tensor cores, tile by tile, with a sink in registers.
#include <type_traits>

#include "ops/sample_grad/cuda/sample_grad_math_cuda.h"

namespace pynas::cuda {
namespace {

constexpr int kStages = 3;  // k-steps in shared memory: one in use, two on their way

// ---- sinks: fold() takes each finished unit's tile, finish() ends the block

// Stores the tile as it is.
template <class Math>
struct RawSink {
  struct Arguments {
    typename Math::Sum* raw;  // [units][tiles in the slab][64][64]
  };
  Arguments out;

  __device__ void fold(int unit, const typename Math::Sum (&sums)[kThreadElements]) {
    auto* tile = out.raw + (int64_t{unit} * gridDim.x + blockIdx.x) * kTileElements;
    for (int i = 0; i < kThreadElements; ++i) tile[Math::row(i) * kTile + Math::column(i)] = sums[i];
  }
  __device__ void finish() {}
};

// Sums the squares of the tile, one partial sum a warp, so that no barrier is needed.
template <class Math>
struct NormSink {
  struct Arguments {
    float* partial;  // [units][tiles][warps]
  };
  Arguments out;

  __device__ void fold(int unit, const float (&sums)[kThreadElements]) {
    float square = 0;
    for (int i = 0; i < kThreadElements; ++i) square += sums[i] * sums[i];
    square = warp_sum(square);
    if (threadIdx.x % 32 == 0) {
      out.partial[(int64_t{unit} * gridDim.x + blockIdx.x) * kTileWarps + threadIdx.x / 32] = square;
    }
  }
  __device__ void finish() {}
};

// Keeps up to kSlots moments of every element in registers; the centred one is Welford's, with the mean taken
// from slot 0:  centered += (g - mean)^2 n / (n + 1), with the mean of the n gradients before this one.
template <class Math, int kSlots>
struct MomentSink {
  struct Arguments {
    MomentSlots slots;
    float* partial;  // [splits][slots][tiles][64][64]
  };
  Arguments out;
  float moments[kSlots][kThreadElements] = {};
  float count = 0;

  __device__ void fold(int, const float (&sums)[kThreadElements]) {
    const float inverse = count > 0 ? 1 / count : 0.f, weight = count / (count + 1);
    count += 1;
#pragma unroll
    for (int k = kSlots - 1; k >= 0; --k) {  // downwards: centered needs the sum as it was before
      if (k >= out.slots.count) continue;
      auto& moment = moments[k];
      switch (1u << out.slots.bit[k]) {
        case kMomentSum:
          for (int i = 0; i < kThreadElements; ++i) moment[i] += sums[i];
          break;
        case kMomentAbs:
          for (int i = 0; i < kThreadElements; ++i) moment[i] += fabsf(sums[i]);
          break;
        case kMomentSquare:
          for (int i = 0; i < kThreadElements; ++i) moment[i] += sums[i] * sums[i];
          break;
        case kMomentSign:
          for (int i = 0; i < kThreadElements; ++i)
            moment[i] += static_cast<float>((sums[i] > 0) - (sums[i] < 0));
          break;
        case kMomentCentered:
          for (int i = 0; i < kThreadElements; ++i) {
            const float difference = sums[i] - moments[0][i] * inverse;
            moment[i] += difference * difference * weight;
          }
          break;
      }
    }
  }

  __device__ void finish() {
    for (int k = 0; k < kSlots; ++k) {
      if (k >= out.slots.count) continue;
      float* tile = out.partial +
                    ((int64_t{blockIdx.y} * out.slots.count + k) * gridDim.x + blockIdx.x) * kTileElements;
      for (int i = 0; i < kThreadElements; ++i) tile[Math::row(i) * kTile + Math::column(i)] = moments[k][i];
    }
  }
};

// ---- the kernel

// Block: one 64 x 64 tile of the weight matrix; for each unit of its share (blockIdx.y), the product of the
//   unit's gradient rows and shifted input rows, then one fold into the sink.
// Thread: 16 elements of the tile and their moments; loads 16 bytes of each operand a k-step, two steps ahead
//   of use.
// Roofline: 2 B O C/groups kh kw Ho Wo operations / 990 (bf16 and float16), 165 (float32 by three tf32
//   products), 34 (float64) TFLOP/s, or both tensors once / 3.35 TB/s. grad_output is read again by every
//   column tile, the input by every row tile and tap, from L2.
// Design: only the tile of one unit exists at a time, in registers; a plain implementation writes and reads
//   B x weights numbers.
template <class Math, class Sink>
__global__ void __launch_bounds__(kTileThreads)
    tile_kernel(Layer layer, int64_t first_tile, typename Sink::Arguments arguments) {
  using Element = typename Math::Element;
  constexpr int kVector = 16 / static_cast<int>(sizeof(Element)), kVectors = kTile / kVector;
  static_assert(kVectors * Math::kDepth == kTileThreads, "one vector of each operand a thread and k-step");
  SHARED(__align__(128) Element, delta_tile, [kStages][Math::kDepth][Math::kPitch]);
  SHARED(__align__(128) Element, input_tile, [kStages][Math::kDepth][Math::kPitch]);

  const int64_t tile = first_tile + blockIdx.x;
  const int column_tile = static_cast<int>(tile % layer.column_tiles);
  const int64_t quotient = tile / layer.column_tiles;
  const int row_tile = static_cast<int>(quotient % layer.row_tiles),
            group = static_cast<int>(quotient / layer.row_tiles);

  // What this thread loads: one row of the k-step, one vector of neighbouring channels. Column n of the
  // weight matrix is (tap, channel).
  const int load_row = threadIdx.x / kVectors, load_column = threadIdx.x % kVectors * kVector;
  const int m = row_tile * kTile + load_column, n = column_tile * kTile + load_column;
  const int tap = n / layer.input.channels, channel = n % layer.input.channels;
  const bool row_valid = m < layer.grad_output.channels, column_valid = tap < layer.taps;
  const int dy = tap / layer.kernel_width * layer.dilation_y - layer.padding_y;
  const int dx = tap % layer.kernel_width * layer.dilation_x - layer.padding_x;
  const auto* delta =
      static_cast<const Element*>(layer.grad_output.data) + int64_t{group} * layer.grad_output.channels;
  const auto* input = static_cast<const Element*>(layer.input.data) + int64_t{group} * layer.input.channels;

  const int units = layer.units();
  const int begin = static_cast<int>(int64_t{units} * blockIdx.y / gridDim.y);
  const int end = static_cast<int>(int64_t{units} * (blockIdx.y + 1) / gridDim.y);
  const int steps = max(1, ceil_div(layer.split_rows, Math::kDepth));

  // Issues the loads of the next k-step. It runs on over units, so that the pipeline never drains between
  // them.
  int next_step = 0, next_unit = begin, next_group = begin / layer.row_splits,
      next_split = begin % layer.row_splits;
  auto load_next = [&](int stage) {
    if (next_unit < end) {
      const int in_split = next_step * Math::kDepth + load_row, r = next_split * layer.split_rows + in_split;
      const bool valid = in_split < layer.split_rows && r < layer.rows;
      const uint32_t sample = layer.by_positions.divide(r),
                     position = layer.by_positions.remainder(r, sample);
      const int y = layer.by_out_width.divide(position), x = layer.by_out_width.remainder(position, y);
      const int64_t b = int64_t{next_group} * layer.group_size + sample;
      const bool delta_valid = valid && row_valid;
      cp_async_16(&delta_tile[stage][load_row][load_column],
                  delta_valid ? delta + b * layer.grad_output.batch + y * layer.grad_output.row +
                                    x * layer.grad_output.column + m
                              : delta,
                  delta_valid ? 16 : 0);
      const int iy = y * layer.stride_y + dy, ix = x * layer.stride_x + dx;
      const bool input_valid =
          valid && column_valid && iy >= 0 && iy < layer.height && ix >= 0 && ix < layer.width;
      cp_async_16(&input_tile[stage][load_row][load_column],
                  input_valid ? input + b * layer.input.batch + iy * layer.input.row +
                                    ix * layer.input.column + channel
                              : input,
                  input_valid ? 16 : 0);
      if (++next_step == steps) {
        next_step = 0;
        ++next_unit;
        if (++next_split == layer.row_splits) {
          next_split = 0;
          ++next_group;
        }
      }
    }
    cp_async_commit();
  };

  Sink sink{arguments};
  int stage = 0;
  for (; stage < kStages - 1; ++stage) load_next(stage);
  stage = 0;
  for (int unit = begin; unit < end; ++unit) {
    typename Math::Sum sums[kThreadElements] = {};
    for (int step = 0; step < steps; ++step) {
      cp_async_wait<kStages - 2>();
      __syncthreads();  // this stage has arrived, and nobody still reads the one that is filled next
      load_next(stage == 0 ? kStages - 1 : stage - 1);
      Math::multiply(delta_tile[stage], input_tile[stage], sums);
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
    sink.fold(unit, sums);
  }
  sink.finish();
}

template <class Math, class Sink>
void launch_tiles(const Layer& layer, int64_t first_tile, int64_t tiles, int splits,
                  const typename Sink::Arguments& arguments, cudaStream_t stream) {
  if (tiles == 0 || splits == 0) return;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(splits));
  launch(tile_kernel<Math, Sink>, grid, dim3(kTileThreads), 0, stream, layer, first_tile, arguments);
}

// Calls function(TypeTag<Math>{}) for every type but float64.
template <class F>
void visit_float_math(DType dtype, bool tf32, F&& function) {
  if (dtype == DType::kBFloat16) return function(TypeTag<HalfMath<__nv_bfloat16>>{});
  if (dtype == DType::kFloat16) return function(TypeTag<HalfMath<__half>>{});
  if (tf32) return function(TypeTag<Tf32Math<false>>{});
  return function(TypeTag<Tf32Math<true>>{});
}

}  // namespace

void tiles_to_raw(const Layer& layer, DType dtype, bool tf32, int64_t first_tile, int64_t tile_count,
                  void* raw, cudaStream_t stream) {
  const int64_t wanted = ceil_div(kTargetBlocks, max(tile_count, int64_t{1}));
  const int splits = static_cast<int>(min(wanted, int64_t{layer.units()}));
  auto run = [&](auto tag) {
    using Math = typename decltype(tag)::type;
    launch_tiles<Math, RawSink<Math>>(layer, first_tile, tile_count, splits,
                                      {static_cast<typename Math::Sum*>(raw)}, stream);
  };
  if (dtype == DType::kFloat64) return run(TypeTag<DoubleMath>{});
  visit_float_math(dtype, tf32, run);
}

void tiles_to_moments(const Layer& layer, DType dtype, bool tf32, const MomentSlots& slots, int splits,
                      float* partial, cudaStream_t stream) {
  visit_float_math(dtype, tf32, [&](auto tag) {
    using Math = typename decltype(tag)::type;
    if (slots.count <= 3) {
      launch_tiles<Math, MomentSink<Math, 3>>(layer, 0, layer.tiles(), splits, {slots, partial}, stream);
    } else {
      launch_tiles<Math, MomentSink<Math, kNumMoments>>(layer, 0, layer.tiles(), splits, {slots, partial},
                                                        stream);
    }
  });
}

void tiles_to_norms(const Layer& layer, DType dtype, bool tf32, int splits, float* partial,
                    cudaStream_t stream) {
  visit_float_math(dtype, tf32, [&](auto tag) {
    using Math = typename decltype(tag)::type;
    launch_tiles<Math, NormSink<Math>>(layer, 0, layer.tiles(), splits, {partial}, stream);
  });
}

}  // namespace pynas::cuda
