// The depthwise stages against loops in double precision.
#include <algorithm>

#include "buffers.h"
#include "kernels.h"
#include "ops/depthwise/depthwise.h"

namespace {

using check::Buffer;
using pynas::DType;

struct Filter {
  int kernel, dilation;
  bool open = true;
};

struct Problem {
  int batch, channels, height, width, stride;
  DType dtype;
  bool affine = false, accumulate = false;
  std::vector<Filter> filters = {{3, 1}, {5, 1}, {3, 2}, {5, 2}};
};

// Values that the dtype represents, and their buffer.
struct Values {
  std::vector<double> values;
  Buffer buffer;

  Values(DType dtype, size_t n, unsigned seed)
      : values(check::random_values(n, seed)), buffer(n * check::dtype_bytes(dtype)) {
    for (size_t i = 0; i < n; ++i) {
      if (i % 5 == 0) values[i] = std::round(values[i]);  // zeros: the rectifier's edge
      check::store(dtype, buffer.data(), i, values[i] = check::round_to(dtype, values[i]));
    }
  }
};

// Rounding of a result to the dtype, on top of the sums'.
double stored_tolerance(DType dtype, double scale) {
  const double unit = dtype == DType::kBFloat16 ? 4e-3 : dtype == DType::kFloat16 ? 5e-4 : 0;
  return unit * scale + check::tolerance(dtype, scale);
}

void check_problem(const Problem& q) {
  if (!check::unless_half(q.dtype)) return;
  const size_t C = size_t(q.channels), H = size_t(q.height), W = size_t(q.width), N = size_t(q.batch);
  const size_t s = size_t(q.stride), OH = (H + s - 1) / s, OW = (W + s - 1) / s;
  const DType sums = q.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const size_t element = check::dtype_bytes(q.dtype), sum_element = sums == DType::kFloat64 ? 8 : 4;
  const Values x(q.dtype, N * H * W * C, 1), scale(sums, C, 2), offset(sums, C, 3),
      before(q.dtype, N * H * W * C, 4);
  std::vector<double> v(x.values), h(x.values), terms(x.values);  // terms: what v's rounding goes by
  for (size_t i = 0; i < v.size(); ++i) {
    if (q.affine) v[i] = scale.values[i % C] * v[i] + offset.values[i % C];
    terms[i] = q.affine ? std::fabs(scale.values[i % C] * x.values[i]) + std::fabs(offset.values[i % C])
                        : std::fabs(v[i]);
    h[i] = std::max(v[i], 0.0);
  }

  pynas::DepthwiseParams p;
  p.x = x.buffer.data();
  if (q.affine) p.scale = scale.buffer.data();
  if (q.affine) p.offset = offset.buffer.data();
  p.batch = q.batch;
  p.channels = q.channels;
  p.height = q.height;
  p.width = q.width;
  p.out_height = int64_t(OH);
  p.out_width = int64_t(OW);
  p.stride = q.stride;
  p.dtype = q.dtype;
  p.accumulate = q.accumulate;
  const Buffer gates(q.filters.size() * sum_element);
  std::vector<Values> weights, grads;
  std::vector<Buffer> outputs, grad_weights;
  for (size_t k = 0; k < q.filters.size(); ++k) {
    const size_t taps = size_t(q.filters[k].kernel * q.filters[k].kernel);
    weights.emplace_back(q.dtype, C * taps, unsigned(10 + k));
    grads.emplace_back(q.dtype, N * OH * OW * C, unsigned(20 + k));
    outputs.emplace_back(N * OH * OW * C * element);
    grad_weights.emplace_back(C * taps * sum_element);
    check::store(sums, gates.data(), k, q.filters[k].open ? 0.25 : 0.0);
    pynas::DepthwiseConv& conv = p.convs[p.count++];
    conv.kernel = q.filters[k].kernel;
    conv.dilation = q.filters[k].dilation;
    conv.weight = weights[k].buffer.data();
    conv.out = outputs[k].data();
    conv.grad_weight = grad_weights[k].data();
    conv.gate = int64_t(k);
  }
  p.gates = gates.data();
#if defined(PYNAS_ISA_NS)
  const Buffer workspace(pynas::cpu::depthwise_workspace(p, check::kWhere.threads));
#else
  const Buffer workspace(kernels::depthwise_workspace(p));
#endif
  p.workspace = workspace.data();
  kernels::depthwise_forward(p, check::kWhere);

  // A closed filter's gradient must not be read: it stays the buffer's NaN.
  const Buffer unread(N * OH * OW * C * element);
  for (size_t k = 0; k < q.filters.size(); ++k)
    p.convs[k].out = q.filters[k].open ? grads[k].buffer.data() : unread.data();
  const Buffer grad_input(N * H * W * C * element);
  if (q.accumulate) std::memcpy(grad_input.data(), before.buffer.data(), N * H * W * C * element);
  p.grad_input = grad_input.data();
  kernels::depthwise_backward_input(p, check::kWhere);
  kernels::depthwise_backward_weight(p, check::kWhere);

  std::vector<double> want_input(N * H * W * C), size_input(N * H * W * C);
  for (size_t k = 0; k < q.filters.size(); ++k) {
    const int kernel = q.filters[k].kernel, dilation = q.filters[k].dilation,
              padding = dilation * (kernel - 1) / 2;
    const size_t taps = size_t(kernel * kernel);
    std::vector<double> want_weight(C * taps), size_weight(C * taps);
    for (size_t o = 0; o < N * OH * OW * C; ++o) {
      const size_t c = o % C, j = o / C % OW, i = o / C / OW % OH, n = o / C / OW / OH;
      double want = 0, size = 0;
      for (int tap = 0; tap < kernel * kernel; ++tap) {
        const int row = int(s * i) + dilation * (tap / kernel) - padding;
        const int column = int(s * j) + dilation * (tap % kernel) - padding;
        if (row < 0 || row >= q.height || column < 0 || column >= q.width) continue;
        const size_t at = ((n * H + size_t(row)) * W + size_t(column)) * C + c, w = c * taps + size_t(tap);
        if (!q.filters[k].open) continue;
        want += weights[k].values[w] * h[at];
        size += std::fabs(weights[k].values[w] * terms[at]);
        want_weight[w] += grads[k].values[o] * h[at];
        size_weight[w] += std::fabs(grads[k].values[o] * terms[at]);
        want_input[at] += weights[k].values[w] * grads[k].values[o];
        size_input[at] += std::fabs(weights[k].values[w] * grads[k].values[o]);
      }
      check::expect_close("output of filter " + std::to_string(k), check::load(q.dtype, outputs[k].data(), o),
                          want, q.filters[k].open ? stored_tolerance(q.dtype, size) : 0);
    }
    for (size_t w = 0; w < C * taps; ++w) {
      check::expect_close("weight gradient of filter " + std::to_string(k),
                          check::load(sums, grad_weights[k].data(), w), want_weight[w],
                          q.filters[k].open ? check::tolerance(q.dtype, size_weight[w]) : 0);
    }
  }
  for (size_t i = 0; i < N * H * W * C; ++i) {
    // Where float32 cannot tell scale x + offset from zero, either is right.
    if (q.affine && v[i] != 0 && std::fabs(v[i]) < 1e-6) continue;
    const double added = q.accumulate ? before.values[i] : 0;
    check::expect_close("input gradient", check::load(q.dtype, grad_input.data(), i),
                        (v[i] > 0 ? want_input[i] : 0) + added,
                        stored_tolerance(q.dtype, size_input[i] + std::fabs(added)));
  }
}

}  // namespace

CASE(depthwise_float32) { check_problem({2, 16, 17, 9, 1, DType::kFloat32}); }
CASE(depthwise_stride_two) { check_problem({2, 16, 17, 9, 2, DType::kFloat32}); }
CASE(depthwise_bfloat16_affine) { check_problem({1, 35, 9, 10, 1, DType::kBFloat16, true, true}); }
CASE(depthwise_float16_stride_two) { check_problem({1, 33, 7, 12, 2, DType::kFloat16, true, true}); }
CASE(depthwise_float64) {
  check_problem({1, 3, 5, 7, 1, DType::kFloat64, true});
  check_problem({1, 3, 5, 7, 2, DType::kFloat64, true, true});
}
CASE(depthwise_smallest) {
  for (const int stride : {1, 2}) {
    check_problem({1, 1, 1, 1, stride, DType::kFloat32});
    check_problem({3, 17, 2, 1, stride, DType::kFloat32, true});
  }
}
CASE(depthwise_single_filters) {
  for (const Filter filter : {Filter{3, 1}, Filter{5, 1}, Filter{3, 2}, Filter{5, 2}}) {
    check_problem({1, 9, 6, 11, 1, DType::kFloat32, false, false, {filter}});
    check_problem({1, 9, 6, 11, 2, DType::kFloat32, false, true, {filter}});
  }
}
CASE(depthwise_closed) {
  check_problem({1, 8, 9, 9, 1, DType::kFloat32, false, false, {{3, 1, false}, {5, 2}, {5, 1, false}}});
  check_problem({1, 8, 9, 9, 2, DType::kFloat32, true, true, {{5, 1, false}, {3, 2, false}}});
}
CASE(depthwise_empty) { check_problem({0, 4, 3, 3, 1, DType::kFloat32, false, false, {{3, 1}, {5, 2}}}); }
