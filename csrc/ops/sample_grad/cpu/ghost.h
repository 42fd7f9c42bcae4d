// Norms and Gram matrices of linear layers without forming a gradient. Where a sample group has few positions
// (often one), inner products of the factors' rows are far cheaper than the gradients they multiply to. With
// d_t [out_channels] the gradient at the output and x_t [in_channels] the input of position t:
//
//   gram[g,h] = sum_{t in g} sum_{u in h} <d_t, d_u> <x_t, x_u>
//   norms[g]  = gram[g,g]
//
// The inner products are in double: where the gradients of positions cancel, they are as accurate as the
// tiles, which sum before they square. Include only from sample_grad_cpu.cpp, once per instruction set.
#pragma once

#include "common/arena.h"
#include "common/fold.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

constexpr int kGhostRows = kVectorBytes == 64 ? 4 : 2;  // 16 sums in 32 registers, 4 in 16

// One factor (x or d) of all positions: [row][step], a row for each position, zeros beyond `columns`.
struct GhostRows {
  double* values = nullptr;
  int64_t columns = 0, step = 0;

  const double* row(int64_t r) const { return values + r * step; }
};

// products[m][n] = <row first + m, row second + n>; rows past the last repeat it.
inline void multiply_rows(const GhostRows& rows, int64_t first, int64_t second, int64_t last,
                          double (*products)[kGhostRows]) {
  constexpr int L = kLanes<double>;
  const double *a[kGhostRows], *b[kGhostRows];
  PYNAS_UNROLL for (int k = 0; k < kGhostRows; ++k) {
    a[k] = rows.row(least(first + k, last));
    b[k] = rows.row(least(second + k, last));
  }
  Vec<double> sums[kGhostRows][kGhostRows] = {};
  for (int64_t i = 0; i < rows.step; i += L) {
    PYNAS_UNROLL for (int m = 0; m < kGhostRows; ++m) {
      const Vec<double> left = load(a[m] + i);
      PYNAS_UNROLL for (int n = 0; n < kGhostRows; ++n) sums[m][n] += left * load(b[n] + i);
    }
  }
  PYNAS_UNROLL for (int m = 0; m < kGhostRows; ++m) {
    PYNAS_UNROLL for (int n = 0; n < kGhostRows; ++n) products[m][n] = sum_lanes<double>(sums[m][n]);
  }
}

inline double squared_norm(const GhostRows& rows, int64_t r) {
  constexpr int L = kLanes<double>;
  Vec<double> total = zero<double>();
  for (int64_t i = 0; i < rows.step; i += L) total += load(rows.row(r) + i) * load(rows.row(r) + i);
  return sum_lanes<double>(total);
}

class Ghost {
 public:
  // Whether the layer is linear and the rows' products, at half the speed in double, cost
  // at most half of what tiles and sink do.
  static bool fits(const Plan& plan) {
    const SampleGradParams& p = plan.p;
    const bool linear = p.groups == 1 && p.kernel[0] * p.kernel[1] == 1 && p.height == 1 &&
                        p.out_height == 1 && p.width == p.out_width && p.padding[1] == 0 && p.stride[1] == 1;
    if (!linear || plan.group_size != 1 || p.batch == 0 || p.sink == SampleGradSink::kMoments) return false;
    const double positions = static_cast<double>(p.width), batch = static_cast<double>(p.batch);
    const double weights = static_cast<double>(p.in_channels) * static_cast<double>(p.out_channels);
    const double pairs = p.sink == SampleGradSink::kGram ? batch / 2 : 0.5;  // for each sample
    const double ghost = pairs * positions * positions * static_cast<double>(p.in_channels + p.out_channels);
    return 4 * ghost <= (positions + pairs) * weights || p.width == 1;
  }

  explicit Ghost(const Plan& plan) : p_(plan.p) {}

  void arrange(Arena& arena) {
    for (auto [rows, channels] : {std::pair{&x_, p_.in_channels}, std::pair{&d_, p_.out_channels}}) {
      rows->columns = channels;
      rows->step = ceil_div(channels, kLanes<double>) * kLanes<double>;
      rows->values = arena.template take<double>(count() * rows->step);
    }
  }

  // Widens the rows of both factors to double.
  void pack(const Parallel& parallel) const {
    parallel(count(), 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        pack_row(p_.input, p_.input_strides, r, x_);
        pack_row(p_.grad_output, p_.grad_output_strides, r, d_);
      }
    });
  }

  // Adds thread t's share of the products into its own `products`, [G] or the lower triangle of [G, G].
  void add_share(int64_t threads, int64_t t, double* products) const {
    const int64_t positions = p_.width, last = count() - 1;
    if (p_.sink == SampleGradSink::kNorms) {
      const Range range = part(p_.batch, threads, t);
      for (int64_t g = range.begin; g < range.end; ++g) {
        if (positions == 1) {
          products[g] = squared_norm(x_, g) * squared_norm(d_, g);
          continue;
        }
        const int64_t begin = g * positions, end = begin + positions;
        for (int64_t r = begin; r < end; r += kGhostRows) {
          for (int64_t u = begin; u <= r; u += kGhostRows) products[g] += pairs_within(r, u, end);
        }
      }
      return;
    }
    // Row block i meets i + 1 others: interleaved blocks even that out between the threads.
    for (int64_t i = t; i * kGhostRows < count(); i += threads) {
      for (int64_t j = 0; j <= i; ++j) {
        double x[kGhostRows][kGhostRows], d[kGhostRows][kGhostRows];
        const int64_t first = i * kGhostRows, second = j * kGhostRows;
        multiply_rows(x_, first, second, last, x);
        multiply_rows(d_, first, second, last, d);
        for (int64_t m = 0; m < kGhostRows && first + m <= last; ++m) {
          for (int64_t n = 0; n < kGhostRows && second + n <= last; ++n) {
            const int64_t g = (first + m) / positions, h = (second + n) / positions;
            if (i != j && g == h) products[g * p_.batch + h] += x[m][n] * d[m][n];  // the pair in reverse
            if (h <= g) products[g * p_.batch + h] += x[m][n] * d[m][n];
          }
        }
      }
    }
  }

 private:
  int64_t count() const { return p_.batch * p_.width; }

  // Both orders of every pair of rows in [r, r + kGhostRows) x [u, u + kGhostRows) below `end`.
  double pairs_within(int64_t r, int64_t u, int64_t end) const {
    double x[kGhostRows][kGhostRows], d[kGhostRows][kGhostRows], total = 0;
    multiply_rows(x_, r, u, end - 1, x);
    multiply_rows(d_, r, u, end - 1, d);
    for (int64_t m = 0; m < kGhostRows && r + m < end; ++m) {
      for (int64_t n = 0; n < kGhostRows && u + n < end; ++n) total += x[m][n] * d[m][n];
    }
    return r == u ? total : 2 * total;
  }

  void pack_row(const void* data, const int64_t* strides, int64_t r, const GhostRows& rows) const {
    const int64_t offset = r / p_.width * strides[0] + r % p_.width * strides[3];
    double* to = rows.values + r * rows.step;
    const auto copy = [&](auto type) {
      const auto* from = static_cast<const decltype(type)*>(data) + offset;
      for (int64_t c = 0; c < rows.columns; ++c) to[c] = static_cast<double>(to_float(from[c * strides[1]]));
    };
    switch (p_.dtype) {
      case DType::kFloat64:
        copy(double{});
        break;
      case DType::kBFloat16:
        copy(BFloat16{});
        break;
      case DType::kFloat16:
        copy(Float16{});
        break;
      default:
        copy(float{});
    }
    for (int64_t c = rows.columns; c < rows.step; ++c) to[c] = 0;
  }

  const SampleGradParams& p_;
  GhostRows x_, d_;
};

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
