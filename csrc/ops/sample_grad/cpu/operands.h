// One sample's operands, packed as the plan lays them out. Include only from sample_grad_cpu.cpp, once per
// instruction set.
#pragma once

#include "ops/sample_grad/cpu/pack.h"
#include "ops/sample_grad/cpu/plan.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

// Image rows with zero columns on both sides, lanes over channels.
template <class S, class T>
void pack_image(const Plan& plan, const S* input, T* to) {
  const int64_t* strides = plan.p.input_strides;
  const int64_t L = plan.lanes, before = plan.x_pad[0] * L, after = plan.x_pad[1] * L;
  const Grid grid{plan.height, plan.width, strides[2], strides[3], plan.x.row};
  for (int64_t group = 0; group < plan.conv_groups; ++group) {
    for (int64_t block = 0; block < plan.blocks; ++block, to += plan.x.plane) {
      for (int64_t h = 0; h < plan.height; ++h) {
        T* row = to + h * plan.x.row;
        for (int64_t i = 0; i < before; ++i) row[i] = T(0);
        for (int64_t i = 0; i < after; ++i) row[before + plan.width * L + i] = T(0);
      }
      const S* from = input + (group * plan.row + block * L) * strides[1];
      pack_plane<S, T, kLanes<T>>(from, strides[1], plan.used_lanes(block), grid, to + before);
    }
  }
}

// Patches: to[position][lane] = the input under tap (r, s) of channel c, where the lanes of a group's blocks
// count (c kh + r) kw + s. The channels of a group are first laid out with their padding, behind the packed
// sample: every lane is then a run of such a row. Lanes without a weight repeat the first of their block;
// what they give is never used.
template <class S, class T>
void pack_patches(const Plan& plan, const S* input, T* to) {
  constexpr int L = kLanes<T>;
  const SampleGradParams& p = plan.p;
  if (plan.positions() == 0) return;
  const int64_t rows = plan.patch_rows(), cols = plan.patch_cols(), taps = p.kernel[0] * p.kernel[1];
  T* image = to + plan.x.plane * plan.blocks * plan.conv_groups;
  const int64_t height = least(p.height, rows - p.padding[0]), width = least(p.width, cols - p.padding[1]);
  for (int64_t group = 0; group < plan.conv_groups; ++group) {
    const int64_t channels = p.group_channels();
    __builtin_memset(image, 0, static_cast<size_t>(channels * rows * cols) * sizeof(T));
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t y = 0; y < height; ++y) {
        const S* from = input + (group * channels + c) * p.input_strides[1] + y * p.input_strides[2];
        copy_row(from, p.input_strides[3], width,
                 image + (c * rows + y + p.padding[0]) * cols + p.padding[1]);
      }
    }
    for (int64_t block = 0; block < plan.blocks; ++block, to += plan.x.plane) {
      const T* lane_at[L];
      for (int64_t lane = 0; lane < L; ++lane) {
        const int64_t weight = block * L + (lane < plan.used_lanes(block) ? lane : 0), tap = weight % taps;
        const int64_t r = tap / p.kernel[1], s = tap % p.kernel[1];
        lane_at[lane] = image + (weight / taps * rows + r * p.dilation[0]) * cols + s * p.dilation[1];
      }
      for (int64_t h = 0; h < p.out_height; ++h) {
        const int64_t offset = h * p.stride[0] * cols;
        const T* row[L];
        if (p.stride[1] == 1) {
          for (int lane = 0; lane < L; ++lane) row[lane] = lane_at[lane] + offset;
          interleave<T, L>(row, p.out_width, to + h * plan.x.row, L);
          continue;
        }
        T buffer[L][kRun];
        for (int64_t start = 0; start < p.out_width; start += kRun) {
          const int64_t n = least(kRun, p.out_width - start);
          for (int lane = 0; lane < L; ++lane) {
            row[lane] = buffer[lane];
            copy_row(lane_at[lane] + offset + start * p.stride[1], p.stride[1], n, buffer[lane]);
            for (int64_t i = n; i < ceil_div(n, L) * L; ++i) buffer[lane][i] = T(0);
          }
          interleave<T, L>(row, n, to + h * plan.x.row + start * L, L);
        }
      }
    }
  }
}

template <class S, class T>
void pack_grad_output(const Plan& plan, const S* grad_output, T* to) {
  const SampleGradParams& p = plan.p;
  const int64_t* strides = p.grad_output_strides;
  const Grid grid{p.out_height, p.out_width, strides[2], strides[3], plan.d.row};
  if (plan.layout == Layout::kDepthwise) {
    for (int64_t block = 0; block < plan.blocks; ++block) {
      for (int64_t i = 0; i < plan.out_blocks; ++i, to += plan.d.plane) {
        const S* from = grad_output + (block * plan.lanes * plan.out_blocks + i) * strides[1];
        pack_plane<S, T, kLanes<T>>(from, strides[1] * plan.out_blocks, plan.used_lanes(block), grid, to);
      }
    }
    return;
  }
  for (int64_t group = 0; group < plan.conv_groups; ++group) {
    for (int64_t block = 0; block < plan.out_blocks; ++block, to += plan.d.plane) {
      const int64_t used = least(kOutputs, p.group_out_channels() - block * kOutputs);
      const S* from = grad_output + (group * p.group_out_channels() + block * kOutputs) * strides[1];
      pack_plane<S, T, kOutputs>(from, strides[1], used, grid, to);
    }
  }
}

// sums[o] = sum over positions of grad_output[o] of one sample: its bias gradient.
template <class S, class T>
void sum_positions(const Plan& plan, const S* grad_output, T* sums) {
  const SampleGradParams& p = plan.p;
  const int64_t* strides = p.grad_output_strides;
  for (int64_t o = 0; o < plan.padded_out_channels(); ++o) sums[o] = T(0);
  constexpr int L = kLanes<T>;
  for (int64_t h = 0; h < p.out_height; ++h) {
    const S* row = grad_output + h * strides[2];
    if (strides[1] == 1) {
      for (int64_t w = 0; w < p.out_width; ++w) {
        const S* from = row + w * strides[3];
        int64_t o = 0;
        for (; o + L <= p.out_channels; o += L) store<T>(sums + o, load(sums + o) + load_as<L>(from + o));
        for (; o < p.out_channels; ++o) sums[o] += load_as<1>(from + o)[0];
      }
      continue;
    }
    for (int64_t o = 0; o < p.out_channels; ++o) {
      const S* from = row + o * strides[1];
      int64_t w = 0;
      if (strides[3] == 1 && p.out_width >= L) {
        Vec<T> total = zero<T>();
        for (; w + L <= p.out_width; w += L) total += load_as<L>(from + w);
        sums[o] += sum<T>(total);
      }
      for (; w < p.out_width; ++w) sums[o] += load_as<1>(from + w * strides[3])[0];
    }
  }
}

// The operands of a call: where each sample's packed form is, and how it gets there.
template <class T>
class Operands {
 public:
  explicit Operands(const Plan& plan) : plan_(plan) {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (plan.p.dtype == DType::kBFloat16) choose<BFloat16>();
      if (plan.p.dtype == DType::kFloat16) choose<Float16>();
    }
    if (pack_x_ == nullptr) choose<T>();
  }

  // Packs samples [first, first + count) into x_to and d_to, but for operands that are used where they lie;
  // on return x and d point to the samples. With a bias, writes the samples' rows of `bias`,
  // [batch, padded out_channels].
  void pack(int64_t first, int64_t count, T* x_to, T* d_to, T* bias, const T*& x, const T*& d) const {
    x = plan_.x.direct ? static_cast<const T*>(plan_.p.input) + first * plan_.x.sample : x_to;
    d = plan_.d.direct ? static_cast<const T*>(plan_.p.grad_output) + first * plan_.d.sample : d_to;
    for (int64_t i = 0; i < count; ++i) {
      if (!plan_.x.direct) pack_x_(plan_, plan_.p.input, first + i, x_to + i * plan_.x.sample);
      if (!plan_.d.direct) pack_d_(plan_, plan_.p.grad_output, first + i, d_to + i * plan_.d.sample);
    }
    if (plan_.p.with_bias) sum_bias(first, count, bias);
  }

  void sum_bias(int64_t first, int64_t count, T* bias) const {
    for (int64_t b = first; b < first + count; ++b) {
      bias_(plan_, plan_.p.grad_output, b, bias + b * plan_.padded_out_channels());
    }
  }

 private:
  using Pack = void (*)(const Plan&, const void*, int64_t, T*);

  template <class S>
  void choose() {
    pack_x_ = [](const Plan& plan, const void* from, int64_t b, T* to) {
      const S* sample = static_cast<const S*>(from) + b * plan.p.input_strides[0];
      if (plan.layout == Layout::kPatches) return pack_patches<S, T>(plan, sample, to);
      pack_image<S, T>(plan, sample, to);
    };
    pack_d_ = [](const Plan& plan, const void* from, int64_t b, T* to) {
      pack_grad_output<S, T>(plan, static_cast<const S*>(from) + b * plan.p.grad_output_strides[0], to);
    };
    bias_ = [](const Plan& plan, const void* from, int64_t b, T* to) {
      sum_positions<S, T>(plan, static_cast<const S*>(from) + b * plan.p.grad_output_strides[0], to);
    };
  }

  const Plan& plan_;
  Pack pack_x_ = nullptr, pack_d_ = nullptr, bias_ = nullptr;
};

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
