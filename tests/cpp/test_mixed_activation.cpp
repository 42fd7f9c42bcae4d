// mixed_activation, forward and backward, against the formula in double precision.
#include <array>

#include "buffers.h"
#include "kernels.h"
#include "ops/mixed_activation/mixed_activation.h"

namespace {

using check::Buffer;
using pynas::DType;
using pynas::Normalization;

struct Problem {
  DType dtype;
  int64_t predecessors, batch, features;
  Normalization normalization;
};
constexpr double kEps = 1e-5;
constexpr int64_t kCandidates = 5;  // none, tanh, relu, sigmoid, identity
constexpr std::array<int32_t, pynas::kActivations> kColumns = {1, 2, 3, 4};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double value(int a, double h) {
  return a == 0 ? std::tanh(h) : a == 1 ? std::fmax(h, 0) : a == 2 ? sigmoid(h) : h;
}
double slope(int a, double h) {
  if (a == 0) return 1 - std::tanh(h) * std::tanh(h);
  return a == 1 ? double(h > 0) : a == 2 ? sigmoid(h) * (1 - sigmoid(h)) : 1;
}

struct Expected {
  std::vector<double> y, mean, var, grad_states, grad_products, grad_weights;
};

Expected by_the_formula(const Problem& q, const std::vector<double>& states,
                        const std::vector<double>& products, const std::vector<double>& weights,
                        const std::vector<double>& grad, std::vector<double> mean, std::vector<double> var) {
  const size_t J = size_t(q.predecessors), B = size_t(q.batch), D = size_t(q.features);
  std::vector<double> s(B * D), e(B * D);
  Expected out;
  out.grad_states.resize(J * B * D);
  out.grad_products.resize(2 * J * B * D);
  out.grad_weights.resize(J * kCandidates);
  const auto weight = [&](size_t j, int a) { return weights[j * kCandidates + size_t(kColumns[size_t(a)])]; };
  const auto each = [&](auto body) {
    for (size_t j = 0; j < J; ++j)
      for (size_t b = 0; b < B; ++b)
        for (size_t d = 0; d < D; ++d) {
          const size_t c = 2 * (j * B + b) * D + d;
          body(j, b * D + d, (j * B + b) * D + d, c, c + D);
        }
  };
  each([&](size_t j, size_t i, size_t at, size_t c, size_t h) {
    for (int a = 0; a < pynas::kActivations; ++a)
      s[i] += weight(j, a) * (states[at] + sigmoid(products[c]) * (value(a, products[h]) - states[at]));
  });
  out.y = s;
  e = grad;
  for (size_t d = 0; d < D && q.normalization != Normalization::kNone; ++d) {
    const bool own = q.normalization == Normalization::kBatch;
    if (own) {
      mean[d] = var[d] = 0;
      for (size_t b = 0; b < B; ++b) mean[d] += s[b * D + d] / double(B);
      for (size_t b = 0; b < B; ++b)
        var[d] += (s[b * D + d] - mean[d]) * (s[b * D + d] - mean[d]) / double(B);
    }
    const double rstd = 1 / std::sqrt(var[d] + kEps);
    double g = 0, gy = 0;
    for (size_t b = 0; b < B; ++b) {
      out.y[b * D + d] = (s[b * D + d] - mean[d]) * rstd;
      g += grad[b * D + d] / double(B);
      gy += grad[b * D + d] * out.y[b * D + d] / double(B);
    }
    for (size_t b = 0; b < B; ++b)
      e[b * D + d] = rstd * (grad[b * D + d] - (own ? g + out.y[b * D + d] * gy : 0));
  }
  out.mean = mean;
  out.var = var;
  each([&](size_t j, size_t i, size_t at, size_t c, size_t h) {
    const double gate = sigmoid(products[c]), state = states[at];
    for (int a = 0; a < pynas::kActivations; ++a) {
      const double w = weight(j, a), f = value(a, products[h]);
      if (w == 0) continue;
      out.grad_states[at] += w * e[i] * (1 - gate);
      out.grad_products[c] += w * e[i] * (f - state) * gate * (1 - gate);
      out.grad_products[h] += w * e[i] * gate * slope(a, products[h]);
      out.grad_weights[j * kCandidates + size_t(kColumns[size_t(a)])] += e[i] * (state + gate * (f - state));
    }
  });
  return out;
}

Buffer filled(DType dtype, std::vector<double>& values) {
  Buffer buffer(values.size() * check::dtype_bytes(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = check::round_to(dtype, values[i]);
    check::store(dtype, buffer.data(), i, values[i]);
  }
  return buffer;
}

void expect(const std::string& what, const Buffer& got, DType dtype, const std::vector<double>& want,
            double tolerance) {
  double scale = 1;
  for (const double x : want) scale = std::fmax(scale, std::fabs(x));
  for (size_t i = 0; i < want.size(); ++i)
    check::expect_close(what + " " + std::to_string(i), check::load(dtype, got.data(), i), want[i],
                        tolerance * scale);
}

void check_node(const Problem& q) {
  if (!check::unless_half(q.dtype)) return;
  const size_t J = size_t(q.predecessors), B = size_t(q.batch), D = size_t(q.features);
  const DType sum = q.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  auto states = check::random_values(J * B * D, 1), products = check::random_values(2 * J * B * D, 2);
  auto grad = check::random_values(B * D, 3), weights = check::random_values(J * kCandidates, 4);
  auto mean = check::random_values(D, 5), var = check::random_values(D, 6);
  for (double& v : var) v = v * v + 0.1;
  weights[1] = weights[3] = 0;  // two activations of the first
  if (J > 1)
    std::fill(weights.begin() + kCandidates, weights.begin() + 2 * kCandidates, 0.0);  // and a whole one
  const bool own = q.normalization == Normalization::kBatch;
  const Buffer states_in = filled(q.dtype, states), products_in = filled(q.dtype, products),
               grad_in = filled(q.dtype, grad), weights_in = filled(sum, weights);
  const Buffer given_mean = filled(sum, mean), given_var = filled(sum, var);
  const size_t element = check::dtype_bytes(q.dtype), bytes = check::dtype_bytes(sum);
  const Buffer own_mean(D * bytes), own_var(D * bytes), y(B * D * element), sums(B * D * bytes),
      columns(3 * D * bytes), grad_states(J * B * D * element), grad_products(2 * J * B * D * element),
      grad_weights(J * kCandidates * bytes);
  pynas::MixedActivationParams p;
  p.states = states_in.data();
  p.products = products_in.data();
  p.weights = weights_in.data();
  p.predecessors = q.predecessors;
  p.batch = q.batch;
  p.features = q.features;
  p.candidates = kCandidates;
  for (int a = 0; a < pynas::kActivations; ++a) p.column[a] = kColumns[size_t(a)];
  p.normalization = q.normalization;
  p.eps = kEps;
  p.dtype = q.dtype;
  p.mean = own ? own_mean.data() : given_mean.data();
  p.var = own ? own_var.data() : given_var.data();
  p.y = y.data();
  p.sums = sums.data();
  p.columns = columns.data();
#if defined(PYNAS_ISA_NS)
  const Buffer forward_partial(size_t(pynas::mixed_activation_scratch(p, false)) * sizeof(double));
  const Buffer partial(size_t(pynas::mixed_activation_scratch(p, true)) * sizeof(double));
  p.partial = forward_partial.as<double>();
#else
  const Buffer partial(size_t(pynas::mixed_activation_cuda_blocks(q.batch, q.features)) * J *
                       pynas::kActivations * sizeof(double));
#endif
  kernels::mixed_activation(p, check::kWhere);
  p.grad = grad_in.data();
  p.grad_states = grad_states.data();
  p.grad_products = grad_products.data();
  p.grad_weights = grad_weights.data();
  p.partial = partial.as<double>();
  kernels::mixed_activation_backward(p, check::kWhere);

  const Expected want = by_the_formula(q, states, products, weights, grad, mean, var);
  const double tolerance = q.dtype == DType::kFloat64   ? 1e-12
                           : q.dtype == DType::kFloat32 ? 1e-5
                           : q.dtype == DType::kFloat16 ? 4e-3
                                                        : 3e-2;
  expect("y", y, q.dtype, want.y, tolerance);
  if (own) expect("mean", own_mean, sum, want.mean, tolerance);
  if (own) expect("var", own_var, sum, want.var, tolerance);
  expect("dstates", grad_states, q.dtype, want.grad_states, tolerance);
  expect("dproducts", grad_products, q.dtype, want.grad_products, tolerance);
  expect("dweights", grad_weights, sum, want.grad_weights, tolerance);
}

}  // namespace

CASE(mixed_activation_plain) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16}) {
    check_node({dtype, 1, 1, 1, Normalization::kNone});
    check_node({dtype, 3, 5, 7, Normalization::kNone});
  }
  check_node({DType::kFloat32, 2, 37, 33, Normalization::kNone});  // several blocks
}

CASE(mixed_activation_normalized) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16}) {
    check_node({dtype, 2, 9, 5, Normalization::kBatch});
    check_node({dtype, 2, 1, 5, Normalization::kGiven});
  }
  check_node({DType::kFloat32, 3, 19, 65, Normalization::kBatch});
}
