// Moments of a linear layer's weight where every sample is a group of its own with one position. Its gradient
// is of rank one, so no sums over positions are needed, and the plain moments of a tile of weights stay in
// registers while b runs. With d [B, out_channels] and x [B, in_channels], for every weight (o, i):
//
//   g_b      = d[b,o] x[b,i]
//   sum      = sum_b g_b
//   abs      = sum_b |g_b|
//   square   = sum_b g_b^2
//   sign     = #{b : g_b != 0} - 2 #{b : g_b < 0},   counted 64 samples at a time in words of bits
//   centered = sum_b (g_b - sum / B)^2,              in a second pass
//
// Include only from sample_grad_cpu.cpp, once per instruction set.
#pragma once

#include "common/arena.h"
#include "ops/sample_grad/cpu/operands.h"
#include "ops/sample_grad/cpu/write.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

constexpr int kRankVectors = 2;
constexpr int kRankOutputs = kVectorBytes == 64 ? 4 : 2;  // three sums each: 24 of 32 registers, 12 of 16

// plain[k][n][o] = the moment k of kMask, out of sum, abs and square, over b of x[b][n][lane] d[b][o]; x and
// d are one block each, [batch][kRankVectors][lane] and [batch][kRankOutputs].
template <class T, uint32_t kMask>
void form_rank_one(const T* x, const T* d, int64_t batch, Vec<T> (*plain)[kRankVectors][kRankOutputs]) {
  constexpr int L = kLanes<T>, kStep = kRankVectors * L;
  constexpr int kSums = count_moments(kMask);
  Vec<T> sums[kSums > 0 ? kSums : 1][kRankVectors][kRankOutputs];
  PYNAS_UNROLL for (int k = 0; k < kSums; ++k) {
    PYNAS_UNROLL for (int n = 0; n < kRankVectors; ++n) {
      PYNAS_UNROLL for (int o = 0; o < kRankOutputs; ++o) sums[k][n][o] = zero<T>();
    }
  }
  for (int64_t b = 0; b < batch; ++b, x += kStep, d += kRankOutputs) {
    PYNAS_UNROLL for (int n = 0; n < kRankVectors; ++n) {
      const Vec<T> input = load(x + n * L);
      PYNAS_UNROLL for (int o = 0; o < kRankOutputs; ++o) {
        const Vec<T> g = input * broadcast(d[o]);
        int k = 0;
        if constexpr (kMask & kMomentSum) sums[k++][n][o] += g;
        if constexpr (kMask & kMomentAbs) sums[k++][n][o] += abs(g);
        if constexpr (kMask & kMomentSquare) sums[k++][n][o] += g * g;
      }
    }
  }
  PYNAS_UNROLL for (int k = 0; k < kSums; ++k) {
    PYNAS_UNROLL for (int n = 0; n < kRankVectors; ++n) {
      PYNAS_UNROLL for (int o = 0; o < kRankOutputs; ++o) plain[k][n][o] = sums[k][n][o];
    }
  }
}

// centered[n][o] = sum_b (x[b][n][lane] d[b][o] - sum[n][o] / batch)^2
template <class T>
void form_rank_one_centered(const T* x, const T* d, int64_t batch, const Vec<T> (*sum)[kRankOutputs],
                            Vec<T> (*centered)[kRankOutputs]) {
  constexpr int L = kLanes<T>;
  const Vec<T> scale = broadcast(T(1) / static_cast<T>(batch));
  for (int n = 0; n < kRankVectors; ++n) {
    Vec<T> mean[kRankOutputs], m2[kRankOutputs];
    PYNAS_UNROLL for (int o = 0; o < kRankOutputs; ++o) {
      mean[o] = sum[n][o] * scale;
      m2[o] = zero<T>();
    }
    for (int64_t b = 0; b < batch; ++b) {
      const Vec<T> input = load(x + (b * kRankVectors + n) * L);
      PYNAS_UNROLL for (int o = 0; o < kRankOutputs; ++o) {
        const Vec<T> deviation = input * broadcast(d[b * kRankOutputs + o]) - mean[o];
        m2[o] += deviation * deviation;
      }
    }
    PYNAS_UNROLL for (int o = 0; o < kRankOutputs; ++o) centered[n][o] = m2[o];
  }
}

// Signs of 64 samples of one column, a bit for each.
struct SignWords {
  uint64_t nonzero, negative;
};

// words[w][j]: bit b % 64 of word w = b / 64 has the sign of values[b][j]; NaN counts as zero, as in
// torch.sign.
template <class T>
void pack_signs(const T* values, int64_t batch, int64_t columns, SignWords* words) {
  for (int64_t w = 0; w * 64 < batch; ++w) {
    for (int64_t j = 0; j < columns; ++j) words[w * columns + j] = {0, 0};
    for (int64_t b = w * 64; b < least(batch, w * 64 + 64); ++b) {
      for (int64_t j = 0; j < columns; ++j) {
        const T value = values[b * columns + j];
        const uint64_t negative = value<T(0), positive = value> T(0);
        words[w * columns + j].nonzero |= (negative | positive) << (b % 64);
        words[w * columns + j].negative |= negative << (b % 64);
      }
    }
  }
}

// sign[n][o] from the signs of the factors: a product is negative where one of them is.
template <class T>
void form_rank_one_signs(const SignWords* x, const SignWords* d, int64_t words,
                         Vec<T> (*sign)[kRankOutputs]) {
  constexpr int L = kLanes<T>, kStep = kRankVectors * L;
  typedef int32_t Counts __attribute__((vector_size(L * sizeof(int32_t))));
  int32_t counts[kRankOutputs][kStep] = {};
  for (int64_t w = 0; w < words; ++w, x += kStep, d += kRankOutputs) {
    for (int o = 0; o < kRankOutputs; ++o) {
      for (int i = 0; i < kStep; ++i) {
        const uint64_t nonzero = x[i].nonzero & d[o].nonzero;
        const uint64_t negative = (x[i].negative ^ d[o].negative) & nonzero;
        counts[o][i] += __builtin_popcountll(nonzero) - 2 * __builtin_popcountll(negative);
      }
    }
  }
  for (int n = 0; n < kRankVectors; ++n) {
    for (int o = 0; o < kRankOutputs; ++o) {
      Counts lanes;
      __builtin_memcpy(&lanes, &counts[o][n * L], sizeof lanes);
      sign[n][o] = __builtin_convertvector(lanes, Vec<T>);
    }
  }
}

template <class T>
class RankOne {
 public:
  static bool fits(const Plan& plan) {
    const SampleGradParams& p = plan.p;
    return p.sink == SampleGradSink::kMoments && p.batch > 0 && plan.group_size == 1 && p.groups == 1 &&
           p.kernel[0] * p.kernel[1] == 1 && p.height * p.width == 1 && plan.positions() == 1;
  }

  explicit RankOne(const Plan& plan) : p_(plan.p) {
    x_blocks_ = ceil_div(p_.in_channels, kColumnsOf);
    d_blocks_ = ceil_div(p_.out_channels, kRankOutputs);
    words_ = p_.moments & kMomentSign ? ceil_div(p_.batch, 64) : 0;
  }

  void arrange(Arena& arena) {
    x_ = arena.template take<T>(x_blocks_ * p_.batch * kColumnsOf);
    d_ = arena.template take<T>(d_blocks_ * p_.batch * kRankOutputs);
    x_words_ = arena.template take<SignWords>(x_blocks_ * words_ * kColumnsOf);
    d_words_ = arena.template take<SignWords>(d_blocks_ * words_ * kRankOutputs);
  }

  void run(const Parallel& parallel) const {
    switch (p_.dtype) {
      case DType::kBFloat16:
        pack<BFloat16>(parallel);
        break;
      case DType::kFloat16:
        pack<Float16>(parallel);
        break;
      default:
        pack<T>(parallel);
    }
    // A task: a run of inputs that stays in cache, times 16 blocks of outputs. Inputs run innermost, so that
    // rows of the result are written in long pieces.
    constexpr int64_t kOutputBlocks = 16, kInputBytes = 256 << 10;
    const int64_t block_bytes = p_.batch * kColumnsOf * static_cast<int64_t>(sizeof(T));
    const int64_t run = most(1, least(x_blocks_, kInputBytes / block_bytes));
    const int64_t x_tasks = ceil_div(x_blocks_, run);
    parallel(x_tasks * ceil_div(d_blocks_, kOutputBlocks), 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task / x_tasks * kOutputBlocks, from = task % x_tasks * run;
        for (int64_t i = first; i < least(first + kOutputBlocks, d_blocks_); ++i) {
          for (int64_t j = from; j < least(from + run, x_blocks_); ++j) tile(j, i);
        }
      }
      finish_streaming();
    });
  }

 private:
  static constexpr int kL = kLanes<T>;
  static constexpr int64_t kColumnsOf = kRankVectors * kL;
  using Tiles = Vec<T>[kRankVectors][kRankOutputs];

  // Packs both operands as [block][batch][columns], with samples in the place of positions.
  template <class S>
  void pack(const Parallel& parallel) const {
    if constexpr (sizeof(T) == sizeof(float) || sizeof(S) == sizeof(T)) {
      parallel(x_blocks_, 4, [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
          const S* from = static_cast<const S*>(p_.input) + j * kColumnsOf * p_.input_strides[1];
          const Grid grid{1, p_.batch, 0, p_.input_strides[0], 0};
          T* to = x_ + j * p_.batch * kColumnsOf;
          pack_plane<S, T, kColumnsOf>(from, p_.input_strides[1],
                                       least(kColumnsOf, p_.in_channels - j * kColumnsOf), grid, to);
          if (words_ > 0) pack_signs(to, p_.batch, kColumnsOf, x_words_ + j * words_ * kColumnsOf);
        }
      });
      parallel(d_blocks_, 16, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const S* from =
              static_cast<const S*>(p_.grad_output) + i * kRankOutputs * p_.grad_output_strides[1];
          const Grid grid{1, p_.batch, 0, p_.grad_output_strides[0], 0};
          T* to = d_ + i * p_.batch * kRankOutputs;
          pack_plane<S, T, kRankOutputs>(from, p_.grad_output_strides[1],
                                         least(kRankOutputs, p_.out_channels - i * kRankOutputs), grid, to);
          if (words_ > 0) pack_signs(to, p_.batch, kRankOutputs, d_words_ + i * words_ * kRankOutputs);
        }
      });
    }
  }

  void tile(int64_t j, int64_t i) const {
    const T *x = x_ + j * p_.batch * kColumnsOf, *d = d_ + i * p_.batch * kRankOutputs;
    const bool centered = (p_.moments & kMomentCentered) != 0;
    Tiles plain[3], last;
    switch ((p_.moments & 7u) | (centered ? kMomentSum : 0u)) {
      case 1:
        form_rank_one<T, 1>(x, d, p_.batch, plain);
        break;
      case 2:
        form_rank_one<T, 2>(x, d, p_.batch, plain);
        break;
      case 3:
        form_rank_one<T, 3>(x, d, p_.batch, plain);
        break;
      case 4:
        form_rank_one<T, 4>(x, d, p_.batch, plain);
        break;
      case 5:
        form_rank_one<T, 5>(x, d, p_.batch, plain);
        break;
      case 6:
        form_rank_one<T, 6>(x, d, p_.batch, plain);
        break;
      case 7:
        form_rank_one<T, 7>(x, d, p_.batch, plain);
        break;
      default:
        break;
    }
    int64_t row = 0;
    const int skip = centered && (p_.moments & kMomentSum) == 0 ? 1 : 0;  // a sum that only the mean needed
    for (int k = 0; k < count_moments(p_.moments & 7u); ++k) write(j, i, row++, plain[k + skip]);
    if (p_.moments & kMomentSign) {
      form_rank_one_signs<T>(x_words_ + j * words_ * kColumnsOf, d_words_ + i * words_ * kRankOutputs, words_,
                             last);
      write(j, i, row++, last);
    }
    if (centered) {
      form_rank_one_centered(x, d, p_.batch, plain[0], last);
      write(j, i, row++, last);
    }
  }

  void write(int64_t j, int64_t i, int64_t row, const Tiles& tile) const {
    for (int64_t o = 0; o < least(kRankOutputs, p_.out_channels - i * kRankOutputs); ++o) {
      for (int64_t n = 0; n < kRankVectors; ++n) {
        const int64_t column = j * kColumnsOf + n * kL, left = p_.in_channels - column;
        if (left <= 0) break;
        T* to = static_cast<T*>(p_.weight) + (row * p_.out_channels + i * kRankOutputs + o) * p_.in_channels +
                column;
        constexpr bool kWholeLines = kColumnsOf * sizeof(T) >= 64;  // half a streamed line costs a read
        if (left >= kL && kWholeLines)
          store_streaming(to, tile[n][o]);
        else if (left >= kL)
          store(to, tile[n][o]);
        else
          store_partial(to, tile[n][o], static_cast<int>(left));
      }
    }
  }

  const SampleGradParams& p_;
  int64_t x_blocks_ = 0, d_blocks_ = 0, words_ = 0;
  T* x_ = nullptr;
  T* d_ = nullptr;
  SignWords* x_words_ = nullptr;
  SignWords* d_words_ = nullptr;
};

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
