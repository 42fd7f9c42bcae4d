// affine_grad_moments against loops in double precision.
#include "buffers.h"
#include "kernels.h"
#include "ops/affine_grad_moments/affine_grad_moments.h"

namespace {

using check::Buffer;
using pynas::DType;

struct Problem {
  int batch, channels, positions, channel_groups, group_size;
  bool channels_last, per_position;  // per_position: LayerNorm's mean [B, 1, T]; else GroupNorm's [B, K, 1]
  DType dtype;
};

void check_problem(const Problem& q) {
  const size_t n = size_t(q.batch) * q.channels * q.positions;
  const size_t stats = size_t(q.batch) * (q.per_position ? q.positions : q.channel_groups);
  const size_t element = check::dtype_bytes(q.dtype), sum = q.dtype == DType::kFloat64 ? 8 : 4;
  const DType sums = q.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const Buffer delta(n * element), input(n * element), mean(stats * sum), rstd(stats * sum);
  std::vector<double> d = check::random_values(n, 1), x = check::random_values(n, 2);
  std::vector<double> m = check::random_values(stats, 3), s = check::random_values(stats, 4);
  for (size_t i = 0; i < n; ++i) {
    check::store(q.dtype, delta.data(), i, d[i] = check::round_to(q.dtype, d[i]));
    check::store(q.dtype, input.data(), i, x[i] = check::round_to(q.dtype, x[i]));
  }
  for (size_t i = 0; i < stats; ++i) {
    check::store(sums, mean.data(), i, m[i] = check::round_to(sums, m[i]));
    check::store(sums, rstd.data(), i, s[i] = check::round_to(sums, std::fabs(s[i])));
  }

  pynas::AffineGradMomentsParams p;
  p.grad_output = delta.data();
  p.input = input.data();
  p.mean = mean.data();
  p.rstd = rstd.data();
  p.batch = q.batch;
  p.channels = q.channels;
  p.positions = q.positions;
  p.channel_groups = q.channel_groups;
  p.group_size = q.group_size;
  const int64_t contiguous[3] = {int64_t{q.channels} * q.positions, q.positions, 1};
  const int64_t last[3] = {int64_t{q.channels} * q.positions, 1, q.channels};
  const int64_t per_group[3] = {q.channel_groups, 1, 0}, per_position[3] = {q.positions, 0, 1};
  for (int i = 0; i < 3; ++i) {
    p.grad_output_strides[i] = p.input_strides[i] = q.channels_last ? last[i] : contiguous[i];
    p.mean_strides[i] = p.rstd_strides[i] = q.per_position ? per_position[i] : per_group[i];
  }
  p.moments = pynas::kMomentAll;
  p.dtype = q.dtype;

  const size_t groups = size_t(q.batch / q.group_size), channels = size_t(q.channels);
  std::vector<double> want(2 * groups * channels), scale(want);
  for (int b = 0; b < q.batch; ++b)
    for (int c = 0; c < q.channels; ++c)
      for (int t = 0; t < q.positions; ++t) {
        const auto* strides = p.grad_output_strides;
        const size_t at = size_t(b * strides[0] + c * strides[1] + t * strides[2]);
        const int k = c / (q.channels / q.channel_groups);
        const size_t stat = q.per_position ? size_t(b) * q.positions + t : size_t(b) * q.channel_groups + k;
        const size_t cell = size_t(b / q.group_size) * channels + c;
        want[cell] += d[at] * (x[at] - m[stat]) * s[stat];
        scale[cell] += std::fabs(d[at]) * (std::fabs(x[at]) + std::fabs(m[stat])) * s[stat];
        want[groups * channels + cell] += d[at];
        scale[groups * channels + cell] += std::fabs(d[at]);
      }

  auto call = [&] {
    size_t bytes = 0;
    kernels::affine_grad_moments_workspace(p, bytes);
    const Buffer workspace(bytes);
    p.workspace = workspace.data();
    kernels::affine_grad_moments(p, check::kWhere);
  };
  const Buffer rows(want.size() * sum);
  p.rows = rows.data();
  call();
  for (size_t i = 0; i < want.size(); ++i) {
    check::expect_close("row " + std::to_string(i), check::result(rows, q.dtype, i), want[i],
                        check::tolerance(q.dtype, scale[i]));
  }

  const Buffer weight(5 * channels * sum), bias(5 * channels * sum);
  p.rows = nullptr;
  p.weight = weight.data();
  p.bias = bias.data();
  call();
  for (size_t which = 0; which < 2; ++which)
    for (size_t c = 0; c < channels; ++c) {
      double moments[5] = {}, widest = 0;
      for (size_t g = 0; g < groups; ++g) {
        const double v = want[(which * groups + g) * channels + c];
        widest = std::fmax(widest, scale[(which * groups + g) * channels + c]);
        moments[0] += v;
        moments[1] += std::fabs(v);
        moments[2] += v * v;
        moments[3] += (v > 0) - (v < 0);
      }
      for (size_t g = 0; g < groups; ++g) {
        const double v = want[(which * groups + g) * channels + c] - moments[0] / double(groups);
        moments[4] += v * v;
      }
      for (size_t k = 0; k < 5; ++k) {
        const double size = double(groups) * (k == 2 || k == 4 ? widest * widest : widest);
        check::expect_close("moment " + std::to_string(k),
                            check::result(which == 0 ? weight : bias, q.dtype, k * channels + c), moments[k],
                            check::tolerance(q.dtype, size));
      }
    }
}

}  // namespace

CASE(affine_group_norm) { check_problem({4, 6, 35, 3, 2, false, false, DType::kFloat32}); }
CASE(affine_instance_norm_bfloat16) { check_problem({3, 33, 17, 33, 1, true, false, DType::kBFloat16}); }
CASE(affine_layer_norm) { check_problem({4, 65, 9, 1, 1, true, true, DType::kFloat16}); }
CASE(affine_float64) { check_problem({2, 5, 129, 1, 1, false, true, DType::kFloat64}); }
CASE(affine_one_position) { check_problem({9, 4, 1, 2, 3, false, false, DType::kFloat32}); }
CASE(affine_empty) {
  check_problem({0, 4, 3, 2, 1, false, false, DType::kFloat32});
  check_problem({2, 4, 0, 2, 1, false, false, DType::kFloat32});
  check_problem({2, 0, 3, 1, 1, false, false, DType::kFloat32});
}
