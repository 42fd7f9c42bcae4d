#include <cmath>
#include <cstring>

#include "common/visit.h"
#include "ops/normalized_sum/planes.h"
#include "ops/normalized_sum/rows.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

// Sums of each task in float64, sums of all tasks, and coefficients as the walk wants them.
template <class S>
struct Workspace {
  double* sums = nullptr;    // [tasks, 2 K + 1, pattern]
  double* totals = nullptr;  // [1 + K, channels]
  S* patterns = nullptr;     // [3 K + 1, pattern]
  int64_t sums_of_task;
  int64_t bytes;

  Workspace(const NormalizedSumParams& p, const Walk<S>& walk)
      : sums_of_task((2 * p.count + 1) * walk.pattern) {
    sums = static_cast<double*>(p.workspace);
    const int64_t doubles = walk.tasks * sums_of_task + (1 + p.count) * p.channels;
    bytes = doubles * 8 + (3 * p.count + 1) * walk.pattern * static_cast<int64_t>(sizeof(S));
    if (p.workspace == nullptr) return;
    totals = sums + walk.tasks * sums_of_task;
    patterns = reinterpret_cast<S*>(sums + doubles);
  }
};

template <class In, class S>
class Kernel {
 public:
  Kernel(const NormalizedSumParams& params, const Parallel& parallel_)
      : p(params), parallel(parallel_), walk(params, parallel_), active(params), workspace(params, walk) {}

  void statistics() {
    zero(p.mean);
    zero(p.rstd);
    zero(p.var);
    for_tasks([&](int64_t task, int64_t begin, int64_t end) {
      double* sums = workspace.sums + task * workspace.sums_of_task;
      for (int i = 0; i < active.count; ++i) {
        if (!p.is_normalized(active.index[i])) continue;
        double *mean = sums + 2 * i * walk.pattern, *m2 = mean + walk.pattern;
        const In* z = input(active.index[i]);
        if (walk.planes) {
          plane_moments<In, S>(z, p.channels, p.inner, begin, end, mean, m2,
                               sums + 2 * p.count * walk.pattern);
        } else {
          row_moments<In, S>(z, walk.pattern, begin, end, mean, m2);
        }
      }
    });
    parallel(active.count * p.channels, 512, [&](int64_t begin, int64_t end) {
      for (int64_t cell = begin; cell < end; ++cell)
        merge_moments(static_cast<int>(cell / p.channels), cell % p.channels);
    });
  }

  void apply() {
    S* scale = workspace.patterns;
    S* offset = workspace.patterns + active.count * walk.pattern;
    const In* z[NormalizedSumParams::kMaxInputs];
    for (int i = 0; i < active.count; ++i) z[i] = input(active.index[i]);
    for (int64_t c = 0; c < p.channels; ++c) {
      double sum = 0.0;
      for (int i = 0; i < active.count; ++i) {
        const int k = active.index[i];
        const double s = slope(k, c);
        scale[i * walk.pattern + c] = static_cast<S>(s);
        sum += static_cast<double>(active.weight[k]) * shift(p.beta[k], c, 0.0) - s * at(p.mean, k, c);
      }
      offset[c] = static_cast<S>(sum);
    }
    for (int i = 0; i <= active.count; ++i) repeat_pattern(scale + i * walk.pattern);
    In* y = static_cast<In*>(p.output);
    for_tasks([&](int64_t, int64_t begin, int64_t end) {
      if (walk.planes) {
        plane_apply<In, S>(z, active.count, scale, offset, p.channels, p.inner, begin, end, y);
      } else {
        row_apply<In, S>(z, active.count, scale, offset, walk.pattern, begin, end, y);
      }
    });
    for (int64_t q = 0; q < walk.tail; ++q) {
      S sum = offset[q];
      for (int i = 0; i < active.count; ++i)
        sum += scale[i * walk.pattern + q] * S(to_float(z[i][tail_at() + q]));
      store_one(sum, y[tail_at() + q]);
    }
  }

  void reduce() {
    zero(p.grad_gamma);
    zero(p.grad_beta);
    std::memset(p.coefficients, 0, static_cast<size_t>(3 * p.count * p.channels) * sizeof(S));
    for (int k = 0; k < p.count; ++k) static_cast<S*>(p.grad_weights)[k] = S(0);
    const In* g = static_cast<const In*>(p.grad_output);
    const In* z[NormalizedSumParams::kMaxInputs];
    S* mean = workspace.patterns;
    for (int i = 0; i < active.count; ++i) {
      z[i] = input(active.index[i]);
      for (int64_t c = 0; c < p.channels; ++c) mean[i * walk.pattern + c] = S(at(p.mean, active.index[i], c));
      repeat_pattern(mean + i * walk.pattern);
    }
    for_tasks([&](int64_t task, int64_t begin, int64_t end) {
      double* sums = workspace.sums + task * workspace.sums_of_task;
      if (walk.planes) {
        plane_reduce<In, S>(g, z, active.count, mean, p.channels, p.inner, begin, end, sums);
      } else {
        row_reduce<In, S>(g, z, active.count, mean, walk.pattern, begin, end, sums);
      }
    });
    for (int i = 0; i <= active.count && active.count > 0; ++i) {
      double* total = workspace.totals + i * p.channels;
      for (int64_t c = 0; c < p.channels; ++c) total[c] = 0.0;
      for (int64_t task = 0; task < walk.tasks; ++task) {
        const double* sums = workspace.sums + task * workspace.sums_of_task + i * walk.pattern;
        for (int64_t q = 0; q < walk.pattern; ++q) total[q % p.channels] += sums[q];
      }
      for (int64_t q = 0; q < walk.tail; ++q) {
        const double d = static_cast<double>(to_float(g[tail_at() + q]));
        const double centred = i == 0 ? 1.0
                                      : static_cast<double>(to_float(z[i - 1][tail_at() + q])) -
                                            static_cast<double>(mean[(i - 1) * walk.pattern + q]);
        total[q % p.channels] += d * centred;
      }
    }
    for (int i = 0; i < active.count; ++i) write_gradients(i);
  }

  void input_gradients() {
    const In* g = static_cast<const In*>(p.grad_output);
    S* patterns = workspace.patterns;
    for (int i = 0; i < active.count; ++i) {
      for (int which = 0; which < 3; ++which) {
        S* pattern = patterns + (3 * i + which) * walk.pattern;
        for (int64_t c = 0; c < p.channels; ++c)
          pattern[c] = S(at(p.coefficients, which * p.count + active.index[i], c));
        repeat_pattern(pattern);
      }
    }
    for (int k = 0; k < p.count; ++k) {
      if (p.input_gradients[k] == nullptr || active.weight[k] != S(0)) continue;
      std::memset(p.input_gradients[k], 0, static_cast<size_t>(p.outer * p.channels * p.inner) * sizeof(In));
    }
    const bool stream = streams();
    for_tasks([&](int64_t, int64_t begin, int64_t end) {
      const int64_t step = walk.planes ? 1 : lines_of_block<S>(walk.pattern);
      for (int64_t from = begin; from < end; from += step) {
        for (int i = 0; i < active.count; ++i) {
          const int k = active.index[i];
          In* dz = static_cast<In*>(p.input_gradients[k]);
          if (dz == nullptr) continue;
          const In* z = p.is_normalized(k) && p.batch_statistics ? input(k) : nullptr;
          const S *a = patterns + 3 * i * walk.pattern, *b = a + walk.pattern, *c = b + walk.pattern;
          const int64_t to = least(from + step, end);
          if (walk.planes) {
            plane_gradient<In, S>(g, z, a, b, c, p.channels, p.inner, from, to, dz);
          } else {
            stream ? row_gradient<true>(g, z, a, b, c, walk.pattern, from, to, dz)
                   : row_gradient<false>(g, z, a, b, c, walk.pattern, from, to, dz);
          }
        }
      }
      if (stream) end_stream();
    });
    for (int i = 0; i < active.count; ++i) {
      In* dz = static_cast<In*>(p.input_gradients[active.index[i]]);
      const S *a = patterns + 3 * i * walk.pattern, *b = a + walk.pattern, *c = b + walk.pattern;
      for (int64_t q = 0; q < walk.tail && dz != nullptr; ++q) {
        const S z = S(to_float(input(active.index[i])[tail_at() + q]));
        store_one(a[q] * S(to_float(g[tail_at() + q])) + (b[q] != S(0) ? b[q] * z : S(0)) + c[q],
                  dz[tail_at() + q]);
      }
    }
  }

 private:
  const In* input(int k) const { return static_cast<const In*>(p.inputs[k]); }
  double at(const void* table, int64_t k, int64_t c) const {
    return static_cast<double>(static_cast<const S*>(table)[k * p.channels + c]);
  }
  static double shift(const void* values, int64_t c, double missing) {
    return values == nullptr ? missing : static_cast<double>(static_cast<const S*>(values)[c]);
  }
  double slope(int k, int64_t c) const {  // s_kc
    return static_cast<double>(active.weight[k]) * shift(p.gamma[k], c, 1.0) * at(p.rstd, k, c);
  }
  // Whether the gradients are more than caches hold until somebody reads them, and aligned.
  bool streams() const {
    int64_t wanted = 0;
    bool aligned = true;
    for (int k = 0; k < p.count; ++k) {
      wanted += p.input_gradients[k] != nullptr;
      aligned = aligned && reinterpret_cast<uintptr_t>(p.input_gradients[k]) % kVectorBytes == 0;
    }
    const int64_t bytes = wanted * p.outer * p.channels * p.inner * static_cast<int64_t>(sizeof(In));
    return aligned && bytes >= int64_t{16} << 20;
  }
  int64_t tail_at() const { return walk.units * walk.pattern; }
  void zero(void* table) const {
    std::memset(table, 0, static_cast<size_t>(p.count * p.channels) * sizeof(S));
  }
  void repeat_pattern(S* pattern) const {
    for (int64_t q = p.channels; q < walk.pattern; ++q) pattern[q] = pattern[q - p.channels];
  }

  template <class F>
  void for_tasks(F body) const {
    parallel(walk.tasks, 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task)
        body(task, walk.first_unit(task), walk.first_unit(task + 1));
    });
  }

  void merge_moments(int i, int64_t c) const {
    const int k = active.index[i];
    S *mean_out = static_cast<S*>(p.mean), *rstd_out = static_cast<S*>(p.rstd),
      *var_out = static_cast<S*>(p.var);
    const int64_t cell = k * p.channels + c;
    if (!p.is_normalized(k)) {
      rstd_out[cell] = S(1);
      return;
    }
    double seen = 0.0, mean = 0.0, m2 = 0.0;
    const auto merge = [&](double n, double part, double centred) {
      if (n == 0.0) return;
      const double delta = part - mean, share = n / (seen + n);
      mean += delta * share;
      m2 += centred + delta * delta * seen * share;
      seen += n;
    };
    for (int64_t task = 0; task < walk.tasks; ++task) {
      const double* sums = workspace.sums + task * workspace.sums_of_task + 2 * i * walk.pattern;
      for (int64_t q = c; q < walk.pattern; q += p.channels)
        merge(walk.values(p, task, q), sums[q], sums[walk.pattern + q]);
    }
    for (int64_t q = c; q < walk.tail; q += p.channels)
      merge(1.0, static_cast<double>(to_float(input(k)[tail_at() + q])), 0.0);
    const double var = m2 / seen;
    mean_out[cell] = static_cast<S>(mean);
    var_out[cell] = static_cast<S>(var);
    rstd_out[cell] = static_cast<S>(1.0 / std::sqrt(var + p.eps));
  }

  // From A and B of the i-th active input to everything that depends on them.
  void write_gradients(int i) const {
    const int k = active.index[i];
    const double M = static_cast<double>(p.outer * p.inner), weight = static_cast<double>(active.weight[k]);
    S* a = static_cast<S*>(p.coefficients) + k * p.channels;
    S *b = a + p.count * p.channels, *constant = b + p.count * p.channels;
    double dw = 0.0;
    for (int64_t c = 0; c < p.channels; ++c) {
      const double A = workspace.totals[c], B = workspace.totals[(1 + i) * p.channels + c];
      const double r = at(p.rstd, k, c), s = slope(k, c);
      dw += shift(p.gamma[k], c, 1.0) * r * B + shift(p.beta[k], c, 0.0) * A;
      a[c] = static_cast<S>(s);
      if (!p.is_normalized(k)) continue;
      static_cast<S*>(p.grad_gamma)[k * p.channels + c] = static_cast<S>(weight * r * B);
      static_cast<S*>(p.grad_beta)[k * p.channels + c] = static_cast<S>(weight * A);
      if (!p.batch_statistics) continue;
      const double scale = -s * r * r * B / M;
      b[c] = static_cast<S>(scale);
      constant[c] = static_cast<S>(-s * A / M - scale * at(p.mean, k, c));
    }
    static_cast<S*>(p.grad_weights)[k] = static_cast<S>(dw);
  }

  const NormalizedSumParams& p;
  const Parallel& parallel;
  const Walk<S> walk;
  const Active<S> active;
  const Workspace<S> workspace;
};

// Calls body with a kernel for the element type.
template <class F>
void visit(const NormalizedSumParams& p, const Parallel& parallel, F body) {
  visit_dtype_without_half(p.dtype, [&](auto types) {
    Kernel<typename decltype(types)::In, typename decltype(types)::Sum> kernel(p, parallel);
    body(kernel);
  });
}

}  // namespace

void normalized_sum_workspace(const NormalizedSumParams& p, const Parallel& parallel, int64_t& bytes) {
  if (p.dtype == DType::kFloat64) {
    bytes = Workspace<double>(p, Walk<double>(p, parallel)).bytes;
  } else {
    bytes = Workspace<float>(p, Walk<float>(p, parallel)).bytes;
  }
}
void normalized_sum_statistics(const NormalizedSumParams& p, const Parallel& parallel) {
  visit(p, parallel, [](auto& kernel) { kernel.statistics(); });
}
void normalized_sum_apply(const NormalizedSumParams& p, const Parallel& parallel) {
  visit(p, parallel, [](auto& kernel) { kernel.apply(); });
}
void normalized_sum_reduce(const NormalizedSumParams& p, const Parallel& parallel) {
  visit(p, parallel, [](auto& kernel) { kernel.reduce(); });
}
void normalized_sum_input_gradients(const NormalizedSumParams& p, const Parallel& parallel) {
  visit(p, parallel, [](auto& kernel) { kernel.input_gradients(); });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
