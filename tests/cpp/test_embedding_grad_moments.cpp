// embedding_grad_moments against loops in double precision.
#include <algorithm>
#include <map>

#include "buffers.h"
#include "kernels.h"
#include "ops/embedding_grad_moments/embedding_grad_moments.h"

namespace {

using check::Buffer;
using pynas::DType;

void check_problem(int batch, int length, int vocabulary, int features, int group_size, DType dtype) {
  const int n = batch * length, groups = batch / group_size, group_positions = length * group_size;
  const size_t element = check::dtype_bytes(dtype), sum = dtype == DType::kFloat64 ? 8 : 4;
  std::vector<double> delta = check::random_values(size_t(n) * features, 1);
  const Buffer data(delta.size() * element);
  for (size_t i = 0; i < delta.size(); ++i) {
    check::store(dtype, data.data(), i, delta[i] = check::round_to(dtype, delta[i]));
  }
  std::mt19937 generator(7);
  std::map<int, std::vector<int64_t>> look_ups;  // a few rows are looked up far more often than others
  for (int i = 0; i < n; ++i)
    look_ups[std::min(int(generator() % vocabulary), int(generator() % vocabulary))].push_back(i);
  std::vector<int64_t> order, offsets{0};
  for (const auto& [row, positions] : look_ups) {
    order.insert(order.end(), positions.begin(), positions.end());
    offsets.push_back(int64_t(order.size()));
  }

  const size_t rows = look_ups.size();
  const Buffer values(5 * rows * size_t(features) * sum);
  pynas::EmbeddingGradMomentsParams p;
  p.grad_output = data.data();
  p.order = order.data();
  p.offsets = offsets.data();
  p.values = values.data();
  p.rows = int64_t(rows);
  p.features = features;
  p.grad_output_stride = features;
  p.group_positions = group_positions;
  p.groups = groups;
  p.moments = pynas::kMomentAll;
  p.dtype = dtype;
  kernels::embedding_grad_moments(p, check::kWhere);

  size_t u = 0;
  for (const auto& [row, positions] : look_ups) {
    for (int d = 0; d < features; ++d) {
      std::vector<double> gradient(size_t(groups), 0);
      double widest = 0, moments[5] = {};
      for (const int64_t i : positions) {
        gradient[size_t(i / group_positions)] += delta[size_t(i) * features + d];
        widest += std::fabs(delta[size_t(i) * features + d]);
      }
      for (const double v : gradient) {
        moments[0] += v;
        moments[1] += std::fabs(v);
        moments[2] += v * v;
        moments[3] += (v > 0) - (v < 0);
      }
      for (const double v : gradient) moments[4] += (v - moments[0] / groups) * (v - moments[0] / groups);
      for (size_t k = 0; k < 5; ++k) {
        check::expect_close("moment " + std::to_string(k) + " of row " + std::to_string(row),
                            check::result(values, dtype, (k * rows + u) * features + d), moments[k],
                            check::tolerance(dtype, k == 2 || k == 4 ? widest * widest : widest));
      }
    }
    ++u;
  }
}

}  // namespace

CASE(embedding_float32) { check_problem(6, 13, 5, 33, 2, DType::kFloat32); }
CASE(embedding_bfloat16) { check_problem(3, 17, 40, 1, 1, DType::kBFloat16); }
CASE(embedding_float16_one_row) { check_problem(5, 9, 1, 7, 1, DType::kFloat16); }
CASE(embedding_float64) { check_problem(4, 3, 3, 35, 1, DType::kFloat64); }
CASE(embedding_empty) {
  check_problem(0, 3, 3, 4, 1, DType::kFloat32);
  check_problem(2, 3, 3, 0, 1, DType::kFloat32);
}
