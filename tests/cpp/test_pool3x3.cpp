// The 3 x 3 pools against loops in double precision.
#include <algorithm>
#include <limits>

#include "buffers.h"
#include "kernels.h"
#include "ops/pool3x3/pool3x3.h"

namespace {

using check::Buffer;
using pynas::DType;

struct Problem {
  int batch, channels, height, width, stride;
  DType dtype;
  bool accumulate = false, use_max = true, use_avg = true, nan = false;
};

// Coarse values, so that maxima have equals; of them the first counts.
std::vector<double> fill(DType dtype, const Buffer& buffer, size_t n, unsigned seed) {
  std::vector<double> values = check::random_values(n, seed);
  for (size_t i = 0; i < n; ++i)
    check::store(dtype, buffer.data(), i, values[i] = std::round(2 * values[i]) / 2);
  return values;
}

void check_problem(const Problem& q) {
  if (!check::unless_half(q.dtype)) return;
  const size_t C = size_t(q.channels), H = size_t(q.height), W = size_t(q.width), N = size_t(q.batch);
  const size_t s = size_t(q.stride), OH = (H + s - 1) / s, OW = (W + s - 1) / s;
  const size_t element = check::dtype_bytes(q.dtype), in = N * H * W * C, out = N * OH * OW * C;
  const Buffer x_buffer(in * element), max_out(out * element), avg_out(out * element),
      grad_max(out * element), grad_avg(out * element), grad_input(in * element), gates(16);
  std::vector<double> x = fill(q.dtype, x_buffer, in, 1);
  if (q.nan) {
    x[in / 2] = std::numeric_limits<double>::quiet_NaN();
    check::store(q.dtype, x_buffer.data(), in / 2, x[in / 2]);
  }
  // A closed pool's gradient must not be read: it stays the buffer's NaN.
  std::vector<double> of_max(out), of_avg(out), before(in);
  if (q.use_max) of_max = fill(q.dtype, grad_max, out, 2);
  if (q.use_avg) of_avg = fill(q.dtype, grad_avg, out, 3);
  if (q.accumulate) before = fill(q.dtype, grad_input, in, 4);
  const DType sums = q.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  check::store(sums, gates.data(), 0, q.use_avg ? 0.5 : 0.0);
  check::store(sums, gates.data(), 1, q.use_max ? 0.5 : 0.0);

  pynas::Pool3x3Params p;
  p.x = x_buffer.data();
  p.max_out = max_out.data();
  p.avg_out = avg_out.data();
  p.grad_max = grad_max.data();
  p.grad_avg = grad_avg.data();
  p.grad_input = grad_input.data();
  p.accumulate = q.accumulate;
  p.gates = gates.data();
  p.max_gate = 1;
  p.avg_gate = 0;
  p.batch = q.batch;
  p.channels = q.channels;
  p.height = q.height;
  p.width = q.width;
  p.out_height = int64_t(OH);
  p.out_width = int64_t(OW);
  p.stride = q.stride;
  p.dtype = q.dtype;
  kernels::pool3x3_forward(p, check::kWhere);
  kernels::pool3x3_backward(p, check::kWhere);

  const double unit = q.dtype == DType::kBFloat16 ? 4e-3 : q.dtype == DType::kFloat16 ? 5e-4 : 0;
  std::vector<double> want(before), size(in);
  for (size_t o = 0; o < out; ++o) {
    const size_t c = o % C, j = o / C % OW, i = o / C / OW % OH, n = o / C / OW / OH;
    std::vector<size_t> window;
    for (int dy = -1; dy <= 1; ++dy) {
      for (int dx = -1; dx <= 1; ++dx) {
        const int row = int(s * i) + dy, column = int(s * j) + dx;
        if (row < 0 || row >= q.height || column < 0 || column >= q.width) continue;
        window.push_back(((n * H + size_t(row)) * W + size_t(column)) * C + c);
      }
    }
    size_t largest = window[0];
    double sum = 0, absolute = 0;
    for (const size_t at : window) {
      if (x[at] > x[largest] || std::isnan(x[at])) largest = at;
      sum += x[at];
      absolute += std::fabs(x[at]);
    }
    const double pixels = double(window.size());
    check::expect_close("maximum", check::load(q.dtype, max_out.data(), o), q.use_max ? x[largest] : 0, 0);
    check::expect_close("average", check::load(q.dtype, avg_out.data(), o), q.use_avg ? sum / pixels : 0,
                        unit * std::fabs(sum) + check::tolerance(q.dtype, absolute));
    want[largest] += of_max[o];
    size[largest] += std::fabs(of_max[o]);
    for (const size_t at : window) {
      want[at] += of_avg[o] / pixels;
      size[at] += std::fabs(of_avg[o]) / pixels;
    }
  }
  for (size_t i = 0; i < in; ++i) {
    check::expect_close(
        "gradient", check::load(q.dtype, grad_input.data(), i), want[i],
        unit * (std::fabs(want[i]) + size[i]) + check::tolerance(q.dtype, size[i] + std::fabs(before[i])));
  }
}

}  // namespace

CASE(pool3x3_float32) {
  check_problem({2, 16, 17, 9, 1, DType::kFloat32});
  check_problem({2, 16, 17, 9, 2, DType::kFloat32, true});
}
CASE(pool3x3_bfloat16) {
  check_problem({1, 33, 9, 8, 1, DType::kBFloat16, true});
  check_problem({1, 33, 9, 8, 2, DType::kBFloat16});
}
CASE(pool3x3_float16) { check_problem({1, 3, 8, 17, 2, DType::kFloat16}); }
CASE(pool3x3_float64) {
  check_problem({1, 5, 7, 5, 1, DType::kFloat64, true});
  check_problem({1, 5, 6, 5, 2, DType::kFloat64});
}
CASE(pool3x3_smallest) {
  for (const int stride : {1, 2}) {
    check_problem({1, 1, 1, 1, stride, DType::kFloat32});
    check_problem({3, 17, 2, 1, stride, DType::kFloat32, true});
  }
}
CASE(pool3x3_closed) {
  check_problem({1, 8, 9, 9, 1, DType::kFloat32, false, false, true});
  check_problem({1, 8, 9, 9, 2, DType::kFloat32, true, true, false});
  check_problem({1, 8, 9, 9, 1, DType::kFloat32, true, false, false});
}
CASE(pool3x3_nan) {
  check_problem({1, 4, 5, 5, 1, DType::kFloat32, false, true, true, true});
  check_problem({1, 4, 5, 5, 2, DType::kFloat32, false, true, true, true});
}
CASE(pool3x3_empty) { check_problem({0, 4, 3, 3, 1, DType::kFloat32}); }
