// Batch statistics of the edge's normalisations, and the coefficients per channel of the forward and backward
// passes. Arrays over channels are padded with zeros to whole blocks.
#pragma once

#include <cmath>

#include "ops/darts_edge/darts_edge.h"
#include "ops/darts_edge/layout.h"

namespace pynas::cpu::PYNAS_ISA_NS::darts {

// One thread's sums over the values of one normalisation, shifted by the first value of each channel so that
// a mean far from zero cancels nothing: float32 over some rows, float64 beyond.
struct Moments {
  float* shift = nullptr;    // [blocks, kL]
  float* sums = nullptr;     // [blocks, 2, kL]: sum d, sum d^2 with d = value - shift
  double* totals = nullptr;  // [blocks, 2, kL]
  int64_t blocks = 0;
  int64_t count = 0;  // values per channel that flush_all has counted

  void place(Arena& arena, int64_t channel_blocks) {
    blocks = channel_blocks;
    shift = arena.take<float>(blocks * kL);
    sums = arena.take<float>(blocks * 2 * kL);
    totals = arena.take<double>(blocks * 2 * kL);
  }
  void clear() {
    count = 0;
    for (int64_t i = 0; i < blocks * 2 * kL; ++i) sums[i] = 0.0f, totals[i] = 0.0;
  }
  // `first`: these are the block's first values since `count` was raised.
  template <int kCount, class Value>
  PYNAS_INLINE void add(int64_t block, bool first, Value value) {
    if (first && count == 0) store(shift + block * kL, value(0));
    const V origin = load(shift + block * kL);
    float* at = sums + block * 2 * kL;
    V sum = load(at), square = load(at + kL);
    PYNAS_UNROLL_ALL for (int i = 0; i < kCount; ++i) {
      const V d = value(i) - origin;
      sum += d;
      square += d * d;
    }
    store(at, sum);
    store(at + kL, square);
  }
  void flush(int64_t block) {
    for (int64_t i = block * 2 * kL; i < (block + 1) * 2 * kL; ++i) {
      totals[i] += static_cast<double>(sums[i]);
      sums[i] = 0.0f;
    }
  }
  // All blocks have seen `values` more values per channel.
  void flush_all(int64_t values) {
    for (int64_t block = 0; block < blocks; ++block) flush(block);
    count += values;
  }
};

struct MeanVariance {
  double mean = 0.0, m2 = 0.0, count = 0.0;
  void merge(double other_mean, double other_m2, double other_count) {  // Chan et al., 1979
    if (other_count == 0.0) return;
    const double delta = other_mean - mean, all = count + other_count;
    m2 += other_m2 + delta * delta * count * other_count / all;
    mean += delta * other_count / all;
    count = all;
  }
};

// From the threads' sums over a normalisation's input to its mean, rstd and variance.
// moments(t): the sums of thread t.
template <class MomentsOf>
void finish_statistics(const DartsEdgeParams& p, const DartsNorm& norm, int threads, MomentsOf moments) {
  for (int64_t c = 0; c < p.channels; ++c) {
    MeanVariance all;
    for (int t = 0; t < threads; ++t) {
      const Moments& part = moments(t);
      if (part.count == 0) continue;
      const double n = static_cast<double>(part.count);
      const double* totals = part.totals + c / kL * 2 * kL + c % kL;
      const double m2 = totals[kL] - totals[0] * totals[0] / n;
      all.merge(static_cast<double>(part.shift[c]) + totals[0] / n, m2 < 0.0 ? 0.0 : m2, n);
    }
    norm.mean[c] = static_cast<float>(all.mean);
    norm.rstd[c] = static_cast<float>(1.0 / std::sqrt(all.m2 / all.count + p.eps));
    norm.variance[c] = static_cast<float>(all.m2 / all.count);
  }
}

// mean, rstd and variance from the running statistics.
inline void take_running_statistics(const DartsEdgeParams& p, const DartsNorm& norm) {
  for (int64_t c = 0; c < p.channels; ++c) {
    norm.mean[c] = norm.running_mean[c];
    norm.rstd[c] = static_cast<float>(1.0 / std::sqrt(static_cast<double>(norm.running_var[c]) + p.eps));
    norm.variance[c] = norm.running_var[c];
  }
}

// weight BN(z) = scale z + offset, with
//   scale  = weight gamma rstd
//   offset = weight beta - scale mean
struct Affine {
  float* scale = nullptr;   // [blocks, kL]
  float* offset = nullptr;  // [blocks, kL]

  void place(Arena& arena, int64_t blocks) {
    scale = arena.take<float>(blocks * kL);
    offset = arena.take<float>(blocks * kL);
  }
  void set(const DartsNorm& norm, int64_t channels, float weight) const {
    for (int64_t c = 0; c < ceil_div(channels, kL) * kL; ++c) {
      if (c >= channels) {
        scale[c] = offset[c] = 0.0f;
        continue;
      }
      const double gamma = norm.gamma ? static_cast<double>(norm.gamma[c]) : 1.0;
      const double beta = norm.beta ? static_cast<double>(norm.beta[c]) : 0.0;
      const double s = static_cast<double>(weight) * gamma * static_cast<double>(norm.rstd[c]);
      scale[c] = static_cast<float>(s);
      offset[c] =
          static_cast<float>(static_cast<double>(weight) * beta - s * static_cast<double>(norm.mean[c]));
    }
  }
};

// The gradient of weight BN(z), with A = sum g and B = sum g (z - mean) over `count` values of a channel:
//   dL/dz  = slope g + offset + curve (z - mean)
//   slope  = weight gamma rstd
//   offset = -slope A / count                   (0 with running statistics)
//   curve  = -slope rstd^2 B / count            (0 with running statistics)
struct AffineGradient {
  float *slope = nullptr, *offset = nullptr, *curve = nullptr, *mean = nullptr;  // [blocks, kL] each

  void place(Arena& arena, int64_t blocks) {
    for (float** array : {&slope, &offset, &curve, &mean}) *array = arena.take<float>(blocks * kL);
  }
  PYNAS_INLINE void load_at(int64_t block, V& s, V& o, V& c, V& m) const {
    s = load(slope + block * kL), o = load(offset + block * kL);
    c = load(curve + block * kL), m = load(mean + block * kL);
  }
  // curve (z - mean), and 0 where curve is 0, as with running statistics: a NaN in z then stays out of dL/dz.
  static PYNAS_INLINE V bend(V curve, V z, V mean) { return curve == V{} ? V{} : curve * (z - mean); }
  // totals: A; dots: B, of each channel. Writes the gradients of gamma and beta, returns dL/dweight.
  double set(const DartsEdgeParams& p, const DartsNorm& norm, float weight, double count,
             const double* totals, const double* dots) const {
    double grad_weight = 0.0;
    for (int64_t c = 0; c < ceil_div(p.channels, kL) * kL; ++c) {
      slope[c] = offset[c] = curve[c] = mean[c] = 0.0f;
      if (c >= p.channels) continue;
      const double gamma = norm.gamma ? static_cast<double>(norm.gamma[c]) : 1.0;
      const double beta = norm.beta ? static_cast<double>(norm.beta[c]) : 0.0;
      const double rstd = static_cast<double>(norm.rstd[c]), w = static_cast<double>(weight);
      grad_weight += gamma * rstd * dots[c] + beta * totals[c];
      if (norm.grad_gamma) norm.grad_gamma[c] = static_cast<float>(w * rstd * dots[c]);
      if (norm.grad_beta) norm.grad_beta[c] = static_cast<float>(w * totals[c]);
      const double s = w * gamma * rstd;
      slope[c] = static_cast<float>(s);
      mean[c] = norm.mean[c];
      if (!p.batch_statistics) continue;  // running statistics do not depend on z
      offset[c] = static_cast<float>(-s * totals[c] / count);
      curve[c] = static_cast<float>(-s * rstd * rstd * dots[c] / count);
    }
    return grad_weight;
  }
};

}  // namespace pynas::cpu::PYNAS_ISA_NS::darts
