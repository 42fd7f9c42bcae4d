// normalized_sum against loops in double precision.
#include "buffers.h"
#include "kernels.h"
#include "ops/normalized_sum/normalized_sum.h"

namespace {

using check::Buffer;
using pynas::DType;

struct Problem {
  int outer, channels, inner, count;
  unsigned normalized, off;  // bit k: z_k is normalised; its weight is zero
  bool affine, batch_statistics;
  DType dtype;
};

// One problem in double precision, with the kernels' buffers beside it.
struct Fixture {
  explicit Fixture(const Problem& problem) : q(problem) {
    sums = q.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
    n = size_t(q.outer) * q.channels * q.inner;
    table = size_t(q.count) * q.channels;
    p.count = q.count;
    p.outer = q.outer;
    p.channels = q.channels;
    p.inner = q.inner;
    p.normalized = q.normalized;
    p.batch_statistics = q.batch_statistics;
    p.dtype = q.dtype;
    weights = fill(sums, size_t(q.count), 1, p.weights);
    for (int k = 0; k < q.count; ++k) {
      if (q.off >> k & 1u)
        check::store(sums, const_cast<void*>(p.weights), size_t(k), weights[size_t(k)] = 0);
      const unsigned seed = unsigned(10 * k);
      z.push_back(fill(q.dtype, n, seed + 2, p.inputs[k]));
      if (!on(k)) p.inputs[k] = nullptr;  // reading it would end the test
      gamma.emplace_back(size_t(q.channels), 1.0);
      beta.emplace_back(size_t(q.channels), 0.0);
      if (!q.affine || (q.normalized >> k & 1u) == 0) continue;
      gamma.back() = fill(sums, size_t(q.channels), seed + 3, p.gamma[k]);
      if (k % 2 == 0) beta.back() = fill(sums, size_t(q.channels), seed + 4, p.beta[k]);
    }
    g = fill(q.dtype, n, 99, p.grad_output);
  }

  std::vector<double> fill(DType dtype, size_t size, unsigned seed, const void*& where) {
    std::vector<double> values = check::random_values(size, seed);
    where = allocate(dtype, size);
    for (size_t i = 0; i < size; ++i)
      check::store(dtype, const_cast<void*>(where), i, values[i] = check::round_to(dtype, values[i]));
    return values;
  }
  void* allocate(DType dtype, size_t size) {
    buffers.emplace_back(size * check::dtype_bytes(dtype));
    return buffers.back().data();
  }
  void expect(const std::string& what, DType dtype, const void* data, size_t i, double want,
              double scale) const {
    const double rounding = dtype == DType::kBFloat16 ? 4e-3 : dtype == DType::kFloat16 ? 5e-4 : 0.0;
    check::expect_close(what + " " + std::to_string(i), check::load(dtype, data, i), want,
                        check::tolerance(sums, 4 * scale) + rounding * std::fabs(want) + 1e-6 * rounding);
  }
  bool on(int k) const { return (q.off >> k & 1u) == 0; }
  bool bn(int k) const { return (q.normalized >> k & 1u) != 0; }
  size_t channel(size_t i) const { return i / size_t(q.inner) % size_t(q.channels); }

  void statistics();
  void gradients();

  const Problem q;
  DType sums;
  size_t n, table;
  pynas::NormalizedSumParams p;
  std::vector<Buffer> buffers;
  std::vector<double> weights, g;
  std::vector<std::vector<double>> z, gamma, beta;
  std::vector<double> mean, var, rstd;
};

void Fixture::statistics() {
  mean.assign(table, 0);
  var.assign(table, 0);
  rstd.assign(table, 0);
  p.mean = allocate(sums, table);
  p.rstd = allocate(sums, table);
  p.var = allocate(sums, table);
  const double M = double(q.outer) * q.inner;
  for (int k = 0; k < q.count; ++k) {
    for (size_t c = 0; c < size_t(q.channels); ++c) {
      const size_t cell = size_t(k) * q.channels + c;
      if (on(k)) rstd[cell] = 1;
      if (!on(k) || !bn(k)) continue;
      for (size_t i = 0; i < n; ++i) mean[cell] += channel(i) == c ? z[k][i] / M : 0;
      for (size_t i = 0; i < n; ++i)
        if (channel(i) == c) var[cell] += (z[k][i] - mean[cell]) * (z[k][i] - mean[cell]) / M;
      rstd[cell] = 1 / std::sqrt(var[cell] + p.eps);
    }
  }
  kernels::normalized_sum_statistics(p, check::kWhere);
  for (size_t cell = 0; cell < table; ++cell) {
    expect("mean", sums, p.mean, cell, mean[cell], 1);
    expect("var", sums, p.var, cell, var[cell], 1);
    expect("rstd", sums, p.rstd, cell, rstd[cell], rstd[cell]);
  }
}

void Fixture::gradients() {
  const double M = double(q.outer) * q.inner;
  const size_t C = size_t(q.channels);
  std::vector<double> A(C), B(table), dots(table), sizes(C);
  for (size_t i = 0; i < n; ++i) {
    A[channel(i)] += g[i];
    sizes[channel(i)] += std::fabs(g[i]);
    for (int k = 0; k < q.count; ++k) {
      const size_t cell = size_t(k) * C + channel(i);
      B[cell] += g[i] * (z[k][i] - mean[cell]);
      dots[cell] += std::fabs(g[i] * (z[k][i] - mean[cell]));
    }
  }
  p.grad_weights = allocate(sums, size_t(q.count));
  p.grad_gamma = allocate(sums, table);
  p.grad_beta = allocate(sums, table);
  p.coefficients = allocate(sums, 3 * table);
  for (int k = 0; k < q.count; ++k)
    p.input_gradients[k] = k == 1 ? nullptr : allocate(q.dtype, n);  // one that nobody wants
  kernels::normalized_sum_reduce(p, check::kWhere);
  kernels::normalized_sum_input_gradients(p, check::kWhere);
  for (int k = 0; k < q.count; ++k) {
    double dw = 0, scale = 0;
    std::vector<double> a(C), b(C), c0(C);
    for (size_t c = 0; c < C; ++c) {
      const size_t cell = size_t(k) * C + c;
      const double w = weights[k], r = rstd[cell];
      dw += on(k) ? gamma[k][c] * r * B[cell] + beta[k][c] * A[c] : 0;
      scale += std::fabs(gamma[k][c]) * r * dots[cell] + std::fabs(beta[k][c]) * sizes[c];
      const double s = w * gamma[k][c] * r;
      a[c] = s;
      if (bn(k) && q.batch_statistics) {
        b[c] = -s * r * r * B[cell] / M;
        c0[c] = -s * A[c] / M - b[c] * mean[cell];
      }
      expect("dgamma", sums, p.grad_gamma, cell, bn(k) ? w * r * B[cell] : 0, std::fabs(w) * r * dots[cell]);
      expect("dbeta", sums, p.grad_beta, cell, bn(k) ? w * A[c] : 0, std::fabs(w) * sizes[c]);
      expect("a", sums, p.coefficients, cell, a[c], std::fabs(a[c]));
      expect("b", sums, p.coefficients, table + cell, b[c], std::fabs(s) * r * r * dots[cell] / M);
    }
    expect("dw", sums, p.grad_weights, size_t(k), dw, scale);
    for (size_t i = 0; i < n && p.input_gradients[k] != nullptr; ++i) {
      const size_t c = channel(i);
      expect("dz", q.dtype, p.input_gradients[k], i, a[c] * g[i] + b[c] * z[k][i] + c0[c],
             (1 + rstd[size_t(k) * C + c]) * std::fabs(a[c]) * (std::fabs(g[i]) + 4));
    }
  }
}

int64_t workspace_bytes(const pynas::NormalizedSumParams& p) {
  int64_t bytes = 0;
#if defined(PYNAS_ISA_NS)
  kernels::normalized_sum_workspace(p, check::kWhere, bytes);
#else
  kernels::normalized_sum_workspace(p, bytes);
#endif
  return bytes;
}

#if !defined(PYNAS_ISA_NS)
void check_running_update(Fixture& f) {
  const Problem& q = f.q;
  pynas::NormalizedSumRunningParams r;
  r.count = q.count;
  r.channels = q.channels;
  r.mean = f.p.mean;
  r.var = f.p.var;
  r.weights = f.p.weights;
  r.momentum = 0.25;
  r.unbias = 1.5;
  r.is_double = f.sums == DType::kFloat64;
  std::vector<std::vector<double>> old_mean(size_t(q.count)), old_var(old_mean);
  for (int k = 0; k < q.count; ++k) {
    if (!f.bn(k)) continue;
    const void *mean = nullptr, *var = nullptr;
    old_mean[k] = f.fill(f.sums, size_t(q.channels), unsigned(7 + k), mean);
    old_var[k] = f.fill(f.sums, size_t(q.channels), unsigned(70 + k), var);
    r.running_mean[k] = const_cast<void*>(mean);
    r.running_var[k] = const_cast<void*>(var);
  }
  kernels::normalized_sum_update_running(r, check::kWhere);
  for (int k = 0; k < q.count; ++k) {
    for (size_t c = 0; c < old_mean[k].size(); ++c) {
      const size_t cell = size_t(k) * q.channels + c;
      const double m = old_mean[k][c], v = old_var[k][c];
      f.expect("running mean", f.sums, r.running_mean[k], c, f.on(k) ? 0.75 * m + 0.25 * f.mean[cell] : m, 2);
      f.expect("running var", f.sums, r.running_var[k], c, f.on(k) ? 0.75 * v + 0.375 * f.var[cell] : v, 2);
    }
  }
}
#endif

void check_problem(const Problem& q) {
  if (!check::unless_half(q.dtype)) return;
  Fixture f(q);
  const Buffer workspace{size_t(workspace_bytes(f.p))};
  f.p.workspace = workspace.data();
  f.statistics();
  f.p.output = f.allocate(q.dtype, f.n);
  kernels::normalized_sum_apply(f.p, check::kWhere);
  for (size_t i = 0; i < f.n; ++i) {
    double y = 0, scale = 0;
    for (int k = 0; k < q.count; ++k) {
      if (!f.on(k)) continue;
      const size_t c = f.channel(i), cell = size_t(k) * q.channels + c;
      const double s = f.weights[k] * f.gamma[k][c] * f.rstd[cell];
      y += s * (f.z[k][i] - f.mean[cell]) + f.weights[k] * f.beta[k][c];
      scale += std::fabs(s) * (std::fabs(f.z[k][i]) + 1) + std::fabs(f.weights[k] * f.beta[k][c]);
    }
    f.expect("y", q.dtype, f.p.output, i, y, scale);
  }
  f.gradients();
#if !defined(PYNAS_ISA_NS)
  check_running_update(f);
#endif
}

}  // namespace

CASE(normalized_sum_rows) { check_problem({70, 16, 1, 5, 0x17, 0x4, true, true, DType::kFloat32}); }
CASE(normalized_sum_odd_rows) { check_problem({37, 17, 1, 3, 0x7, 0x0, true, true, DType::kFloat32}); }
CASE(normalized_sum_splits) { check_problem({1500, 3, 1, 2, 0x3, 0x0, false, true, DType::kFloat32}); }
CASE(normalized_sum_planes) { check_problem({3, 5, 35, 3, 0x5, 0x0, true, true, DType::kFloat32}); }
CASE(normalized_sum_many_channels) { check_problem({9, 65, 1, 2, 0x3, 0x1, true, true, DType::kBFloat16}); }
CASE(normalized_sum_float16) { check_problem({2, 4, 16, 6, 0x3f, 0x20, false, true, DType::kFloat16}); }
CASE(normalized_sum_float64) { check_problem({11, 6, 1, 2, 0x3, 0x0, true, true, DType::kFloat64}); }
CASE(normalized_sum_all_off) { check_problem({6, 4, 1, 2, 0x3, 0x3, true, true, DType::kFloat32}); }
CASE(normalized_sum_fixed_statistics) { check_problem({8, 8, 1, 2, 0x3, 0x0, true, false, DType::kFloat32}); }
// Nothing to sum: nothing is launched, nothing touched; the binding fills in zeros, and on the CPU calls nothing.
CASE(normalized_sum_empty) {
#if !defined(PYNAS_ISA_NS)
  pynas::NormalizedSumParams p;
  p.count = 2;
  p.channels = 4;
  workspace_bytes(p);
  kernels::normalized_sum_statistics(p, check::kWhere);
  kernels::normalized_sum_apply(p, check::kWhere);
  kernels::normalized_sum_reduce(p, check::kWhere);
  kernels::normalized_sum_input_gradients(p, check::kWhere);
  kernels::normalized_sum_update_running({}, check::kWhere);
#endif
}
