#include "ops/affine_grad_moments/affine_grad_moments.h"

#include "common/fold.h"
#include "common/math.h"
#include "common/simd.h"
#include "common/visit.h"

// Memory-bound: a pair of elements of grad_output and input (8 bytes in float32) is read once and takes five
// operations. A task runs through whole sample groups, adds each sample's positions to a gradient of C
// channels in cache, and folds the gradient into its moments when the group is complete, so nothing of size
// [B, C] exists. Where channels are contiguous the lanes are channels and a step takes four positions; where
// positions are, the lanes are positions.

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

enum class Path { kChannelLanes, kChannelLanesPerPosition, kPositionLanes, kPositionLanesPerPosition, kAny };

// How the work is cut: a function of the shapes and strides alone, so that the result
// does not depend on the number of threads.
struct Plan {
  Path path = Path::kAny;
  int64_t folded = 1;  // positions that lie together and are taken as one row of folded * C lanes
  int64_t width = 0;   // lanes of a row: C folded, padded to 64 bytes
  int64_t splits = 1;  // parts that each sample group is cut into: more than one only where groups are few
  int64_t tasks = 1;   // runs of whole groups when splits is 1, else groups * splits
  int64_t task_elements = 0;

  explicit Plan(const AffineGradMomentsParams& p) {
    const int64_t groups = p.batch / p.group_size;
    const bool channels_last = (p.grad_output_strides[1] == 1 && p.input_strides[1] == 1) || p.channels == 1;
    const bool positions_last =
        (p.grad_output_strides[2] == 1 && p.input_strides[2] == 1) || p.positions == 1;
    const bool per_position = p.positions > 1 && (p.mean_strides[2] != 0 || p.rstd_strides[2] != 0);
    const bool dense_statistics = p.mean_strides[2] == 1 && p.rstd_strides[2] == 1;
    if (p.positions == 0) {
      path = Path::kAny;  // no statistics to read either
    } else if (positions_last && p.positions >= 4 && (!per_position || dense_statistics)) {
      path = per_position ? Path::kPositionLanesPerPosition : Path::kPositionLanes;
    } else if (channels_last && (!per_position || p.channel_groups == 1)) {
      path = per_position ? Path::kChannelLanesPerPosition : Path::kChannelLanes;
    }
    // Few channels: take several positions as one row, until its length is a multiple of 64
    // bytes and at least 256 bytes.
    const int64_t lanes = p.dtype == DType::kFloat64 ? 8 : 16;
    const bool dense = p.grad_output_strides[2] == p.channels && p.input_strides[2] == p.channels;
    if (path == Path::kChannelLanes && dense) {
      while ((p.channels * folded % lanes != 0 || p.channels * folded < 4 * lanes) && folded < p.positions)
        ++folded;
      if (p.channels * folded > 2048) folded = 1;  // outgrows L1: the ragged end of a row costs less
    }
    width = ceil_div(p.channels * folded, lanes) * lanes;
    constexpr int64_t kPieces = 16;
    if (groups >= kPieces / 2) {
      tasks = groups < kPieces ? groups : kPieces;
    } else if (groups > 0) {
      splits = ceil_div(kPieces, groups);
      if (splits > p.group_size) splits = p.group_size;
      tasks = groups * splits;
    }
    task_elements = 4 * width + 2 * kStateRows * (ceil_div(p.channels, lanes) * lanes);
  }
};

template <class T>
struct Scratch {  // of one task
  T* gamma;      // [width] the group's gradient of the scale, a value per lane; complete, a value per channel
  T* beta;       // [width] the group's gradient of the shift
  T* mean;       // [width] statistics of the sample at hand, a value per lane
  T* rstd;       // [width]
  T* states[2];  // [kStateRows, C] running moments of gamma and of beta
  bool spread = false;  // mean and rstd are filled in

  Scratch(const AffineGradMomentsParams& p, const Plan& plan, int64_t task) {
    gamma = static_cast<T*>(p.workspace) + task * plan.task_elements;
    beta = gamma + plan.width;
    mean = beta + plan.width;
    rstd = mean + plan.width;
    states[0] = rstd + plan.width;
    states[1] = states[0] + kStateRows * p.channels;
  }
};

template <class T>
void fill(T* values, int64_t n, T value) {
  for (int64_t i = 0; i < n; ++i) values[i] = value;
}

// The statistics of sample b, position 0, spread to a value per lane and repeated over the folded positions.
template <class T>
void spread_statistics(const AffineGradMomentsParams& p, const Plan& plan, int64_t b, Scratch<T>& s) {
  const T* mean = static_cast<const T*>(p.mean) + b * p.mean_strides[0];
  const T* rstd = static_cast<const T*>(p.rstd) + b * p.rstd_strides[0];
  const int64_t per_group = p.channels / p.channel_groups;
  const bool same_for_all = p.mean_strides[0] == 0 && p.rstd_strides[0] == 0;
  if (s.spread && same_for_all) return;
  s.spread = true;
  for (int64_t k = 0; k < p.channel_groups; ++k) {
    fill(s.mean + k * per_group, per_group, mean[k * p.mean_strides[1]]);
    fill(s.rstd + k * per_group, per_group, rstd[k * p.rstd_strides[1]]);
  }
  for (int64_t i = p.channels; i < p.channels * plan.folded; ++i) {
    s.mean[i] = s.mean[i - p.channels];
    s.rstd[i] = s.rstd[i - p.channels];
  }
}

// Adds kRows rows of n elements, with a mean and a rstd for each lane, or for each row (kPerRow):
//   gamma[i] += sum_r d[r,i] (x[r,i] - mean) rstd
//   beta[i]  += sum_r d[r,i]
template <bool kPerRow, int kRows, class In, class T>
PYNAS_INLINE void add_rows(const In* d, const In* x, int64_t d_stride, int64_t x_stride, const T* mean,
                           const T* rstd, int64_t mean_stride, int64_t rstd_stride, int64_t n, T* gamma,
                           T* beta) {
  const int64_t vectors = n / kLanes<T> * kLanes<T>;
  for (int64_t i = 0; i < vectors; i += kLanes<T>) {
    Vec<T> g = load<T>(gamma + i), h = load<T>(beta + i);
    const Vec<T> lane_mean = kPerRow ? zero<T>() : load<T>(mean + i);
    const Vec<T> lane_rstd = kPerRow ? zero<T>() : load<T>(rstd + i);
    PYNAS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vec<T> delta = load_as<T>(d + r * d_stride + i);
      const Vec<T> mu = kPerRow ? broadcast<T>(mean[r * mean_stride]) : lane_mean;
      const Vec<T> rs = kPerRow ? broadcast<T>(rstd[r * rstd_stride]) : lane_rstd;
      g += delta * ((load_as<T>(x + r * x_stride + i) - mu) * rs);
      h += delta;
    }
    store<T>(gamma + i, g);
    store<T>(beta + i, h);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int64_t i = vectors; i < n; ++i) {
      const T delta = to_float(d[r * d_stride + i]);
      const T mu = kPerRow ? mean[r * mean_stride] : mean[i];
      const T rs = kPerRow ? rstd[r * rstd_stride] : rstd[i];
      gamma[i] += delta * ((to_float(x[r * x_stride + i]) - mu) * rs);
      beta[i] += delta;
    }
  }
}

// Adds sample b with lanes over channels. A row is one position, or plan.folded positions that lie together.
template <bool kPerRow, class In, class T>
void add_channel_lanes(const AffineGradMomentsParams& p, const Plan& plan, int64_t b, Scratch<T>& s) {
  const In* d = static_cast<const In*>(p.grad_output) + b * p.grad_output_strides[0];
  const In* x = static_cast<const In*>(p.input) + b * p.input_strides[0];
  const int64_t d_row = p.grad_output_strides[2] * plan.folded, x_row = p.input_strides[2] * plan.folded;
  const int64_t mean_row = kPerRow ? p.mean_strides[2] : 0, rstd_row = kPerRow ? p.rstd_strides[2] : 0;
  const T* mean = kPerRow ? static_cast<const T*>(p.mean) + b * p.mean_strides[0] : s.mean;
  const T* rstd = kPerRow ? static_cast<const T*>(p.rstd) + b * p.rstd_strides[0] : s.rstd;
  const int64_t rows = p.positions / plan.folded;
  constexpr int kRows = 4;
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    add_rows<kPerRow, kRows>(d + r * d_row, x + r * x_row, d_row, x_row, mean + r * mean_row,
                             rstd + r * rstd_row, mean_row, rstd_row, p.channels * plan.folded, s.gamma,
                             s.beta);
  }
  for (; r < rows; ++r) {
    add_rows<kPerRow, 1>(d + r * d_row, x + r * x_row, d_row, x_row, mean + r * mean_row, rstd + r * rstd_row,
                         mean_row, rstd_row, p.channels * plan.folded, s.gamma, s.beta);
  }
  const int64_t rest = (p.positions - rows * plan.folded) * p.channels;
  if (rest != 0) {
    add_rows<kPerRow, 1>(d + r * d_row, x + r * x_row, d_row, x_row, mean, rstd, int64_t{0}, int64_t{0}, rest,
                         s.gamma, s.beta);
  }
}

// Adds sample b with lanes over positions, channel by channel. Statistics are one value per channel, or a
// vector over positions. Several independent sums (kSums) hide the latency of the additions of long rows.
template <bool kPerPosition, int kSums, class In, class T>
void add_position_lanes(const AffineGradMomentsParams& p, int64_t b, Scratch<T>& s) {
  const T* means = static_cast<const T*>(p.mean) + b * p.mean_strides[0];
  const T* rstds = static_cast<const T*>(p.rstd) + b * p.rstd_strides[0];
  const int64_t per_group = p.channels / p.channel_groups;
  for (int64_t c = 0; c < p.channels; ++c) {
    const In* d =
        static_cast<const In*>(p.grad_output) + b * p.grad_output_strides[0] + c * p.grad_output_strides[1];
    const In* x = static_cast<const In*>(p.input) + b * p.input_strides[0] + c * p.input_strides[1];
    const T* mean = means + c / per_group * p.mean_strides[1];
    const T* rstd = rstds + c / per_group * p.rstd_strides[1];
    constexpr int kStep = kSums * kLanes<T>;
    Vec<T> g[kSums] = {}, h[kSums] = {};
    const auto step = [&](int64_t t, int k) __attribute__((always_inline)) {
      const Vec<T> delta = load_as<T>(d + t);
      Vec<T> centred = load_as<T>(x + t);
      if constexpr (kPerPosition) {
        centred = (centred - load<T>(mean + t)) * load<T>(rstd + t);
      } else {
        centred = centred - broadcast<T>(*mean);
      }
      g[k] += delta * centred;
      h[k] += delta;
    };
    int64_t t = 0;
    for (; t + kStep <= p.positions; t += kStep) {
      PYNAS_UNROLL
      for (int k = 0; k < kSums; ++k) step(t + k * kLanes<T>, k);
    }
    for (; t + kLanes<T> <= p.positions; t += kLanes<T>) step(t, 0);
    PYNAS_UNROLL
    for (int k = 1; k < kSums; ++k) g[0] += g[k], h[0] += h[k];
    T gamma = sum_lanes<T>(g[0]), beta = sum_lanes<T>(h[0]);
    for (; t < p.positions; ++t) {
      const T delta = to_float(d[t]);
      const T centred = to_float(x[t]) - mean[kPerPosition ? t : 0];
      gamma += delta * (kPerPosition ? centred * rstd[t] : centred);
      beta += delta;
    }
    s.gamma[c] += kPerPosition ? gamma : gamma * *rstd;
    s.beta[c] += beta;
  }
}

// Adds sample b of any strides and statistics, as the definition says.
template <class In, class T>
void add_any(const AffineGradMomentsParams& p, int64_t b, Scratch<T>& s) {
  const int64_t per_group = p.channels / p.channel_groups;
  for (int64_t c = 0; c < p.channels; ++c) {
    const In* d =
        static_cast<const In*>(p.grad_output) + b * p.grad_output_strides[0] + c * p.grad_output_strides[1];
    const In* x = static_cast<const In*>(p.input) + b * p.input_strides[0] + c * p.input_strides[1];
    const T* mean = static_cast<const T*>(p.mean) + b * p.mean_strides[0] + c / per_group * p.mean_strides[1];
    const T* rstd = static_cast<const T*>(p.rstd) + b * p.rstd_strides[0] + c / per_group * p.rstd_strides[1];
    for (int64_t t = 0; t < p.positions; ++t) {
      const T delta = to_float(d[t * p.grad_output_strides[2]]);
      const T centred = to_float(x[t * p.input_strides[2]]) - mean[t * p.mean_strides[2]];
      s.gamma[c] += delta * (centred * rstd[t * p.rstd_strides[2]]);
      s.beta[c] += delta;
    }
  }
}

template <class In, class T>
void add_sample(const AffineGradMomentsParams& p, const Plan& plan, int64_t b, Scratch<T>& s) {
  switch (plan.path) {
    case Path::kChannelLanes:
      return add_channel_lanes<false, In>(p, plan, b, s);
    case Path::kChannelLanesPerPosition:
      return add_channel_lanes<true, In>(p, plan, b, s);
    case Path::kPositionLanes:
      if (p.positions < 4 * kLanes<T>) return add_position_lanes<false, 1, In>(p, b, s);
      return add_position_lanes<false, 4, In>(p, b, s);
    case Path::kPositionLanesPerPosition:
      return add_position_lanes<true, 4, In>(p, b, s);
    case Path::kAny:
      return add_any<In>(p, b, s);
  }
}

// The gradient of samples [begin, end), in s.gamma[0..C) and s.beta[0..C).
template <class In, class T>
void add_samples(const AffineGradMomentsParams& p, const Plan& plan, int64_t begin, int64_t end,
                 Scratch<T>& s) {
  fill(s.gamma, plan.width, T(0));
  fill(s.beta, plan.width, T(0));
  const bool spread = plan.path == Path::kChannelLanes;
  for (int64_t b = begin; b < end; ++b) {
    if (spread) spread_statistics(p, plan, b, s);
    add_sample<In>(p, plan, b, s);
  }
  for (int64_t k = 1; k < plan.folded; ++k) {
    for (int64_t c = 0; c < p.channels; ++c) {
      s.gamma[c] += s.gamma[k * p.channels + c];
      s.beta[c] += s.beta[k * p.channels + c];
    }
  }
}

// Folds the complete gradient of sample group g, the count-th of its task, into the
// moments, or writes it to rows.
template <class T>
void finish_group(const AffineGradMomentsParams& p, int64_t g, int64_t count, Scratch<T>& s) {
  const T* gradients[2] = {s.gamma, s.beta};
  for (int which = 0; which < 2; ++which) {
    if (p.rows == nullptr) {
      fold(gradients[which], p.channels, count, p.moments, s.states[which], p.channels);
    } else {
      T* row = static_cast<T*>(p.rows) + (which * (p.batch / p.group_size) + g) * p.channels;
      for (int64_t c = 0; c < p.channels; ++c) row[c] = gradients[which][c];
    }
  }
}

template <class In, class T>
void run(const AffineGradMomentsParams& p, const Parallel& parallel) {
  const Plan plan(p);
  const int64_t groups = p.batch / p.group_size;
  const auto first_group = [&](int64_t piece) { return piece * groups / plan.tasks; };
  parallel(plan.tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      Scratch<T> s(p, plan, task);
      fill(s.states[0], 2 * kStateRows * p.channels, T(0));
      if (plan.splits > 1) {
        const int64_t first = task / plan.splits * p.group_size, split = task % plan.splits;
        add_samples<In>(p, plan, first + split * p.group_size / plan.splits,
                        first + (split + 1) * p.group_size / plan.splits, s);
        continue;
      }
      int64_t count = 0;
      for (int64_t g = first_group(task); g < first_group(task + 1); ++g) {
        add_samples<In>(p, plan, g * p.group_size, (g + 1) * p.group_size, s);
        finish_group(p, g, ++count, s);
      }
    }
  });

  // Parts of split groups are added up and folded into the state of the first task, in order.
  if (plan.splits > 1) {
    Scratch<T> total(p, plan, 0);
    for (int64_t g = 0; g < groups; ++g) {
      Scratch<T> first(p, plan, g * plan.splits);
      for (int64_t split = 1; split < plan.splits; ++split) {
        const Scratch<T> part(p, plan, g * plan.splits + split);
        for (int64_t c = 0; c < p.channels; ++c) {
          first.gamma[c] += part.gamma[c];
          first.beta[c] += part.beta[c];
        }
      }
      first.states[0] = total.states[0];
      first.states[1] = total.states[1];
      finish_group(p, g, g + 1, first);
    }
  }
  if (p.rows != nullptr) return;

  const int64_t blocks = (p.channels + Merged::kElements - 1) / Merged::kElements;
  parallel(2 * blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t which = block / blocks, c = block % blocks * Merged::kElements;
      const int n = static_cast<int>(p.channels - c < Merged::kElements ? p.channels - c : Merged::kElements);
      Merged merged;
      for (int64_t task = 0; task < (plan.splits > 1 ? 1 : plan.tasks); ++task) {
        const int64_t count = plan.splits > 1 ? groups : first_group(task + 1) - first_group(task);
        merged.add(Scratch<T>(p, plan, task).states[which] + c, p.channels, n, count, p.moments);
      }
      merged.write(p.moments, static_cast<T*>(which == 0 ? p.weight : p.bias) + c, p.channels, n);
    }
  });
}

}  // namespace

void affine_grad_moments_workspace(const AffineGradMomentsParams& p, size_t& bytes) {
  const Plan plan(p);
  const size_t element = p.dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
  bytes = static_cast<size_t>(plan.tasks * plan.task_elements) * element;
}

void affine_grad_moments(const AffineGradMomentsParams& p, const Parallel& parallel) {
  visit_dtype(p.dtype, [&](auto types) {
    using Chosen = decltype(types);
    run<typename Chosen::In, typename Chosen::Sum>(p, parallel);
  });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
