// moments_update: several updates against the moments themselves, in double precision.
#include "buffers.h"
#include "kernels.h"
#include "ops/moments_update/moments_update.h"

namespace {

using check::Buffer;
using pynas::DType;

// `offset` elements shift every pointer, so that 0 takes the vector path and 1 the scalar one.
void check_updates(DType dtype, size_t n, size_t offset) {
  const size_t state = dtype == DType::kFloat64 ? 8 : 4, element = check::dtype_bytes(dtype);
  const size_t gradients = 4;
  const Buffer mean((n + offset) * state), abs_mean((n + offset) * state), m2((n + offset) * state);
  for (const Buffer* buffer : {&mean, &abs_mean, &m2}) std::memset(buffer->data(), 0, (n + offset) * state);
  std::vector<std::vector<double>> all;
  for (size_t k = 0; k < gradients; ++k) {
    const Buffer grad((n + offset) * element);
    all.push_back(check::random_values(n, unsigned(k)));
    for (size_t i = 0; i < n; ++i) {
      all[k][i] = check::round_to(dtype, all[k][i]);
      check::store(dtype, grad.data(), i + offset, all[k][i]);
    }
    pynas::MomentsUpdateParams p;
    p.grad = grad.as<char>() + offset * element;
    p.mean = mean.as<char>() + offset * state;
    p.abs_mean = abs_mean.as<char>() + offset * state;
    p.m2 = m2.as<char>() + offset * state;
    p.n = int64_t(n);
    p.count = int64_t(k) + 1;
    p.grad_dtype = dtype;
    kernels::moments_update(p, check::kWhere);
  }
  for (size_t i = 0; i < n; ++i) {
    double sum = 0, abs = 0, centered = 0;
    for (const auto& grad : all) {
      sum += grad[i] / gradients;
      abs += std::fabs(grad[i]) / gradients;
    }
    for (const auto& grad : all) centered += (grad[i] - sum) * (grad[i] - sum);
    check::expect_close("mean", check::result(mean, dtype, i + offset), sum, check::tolerance(dtype, 1));
    check::expect_close("abs mean", check::result(abs_mean, dtype, i + offset), abs,
                        check::tolerance(dtype, 1));
    check::expect_close("m2", check::result(m2, dtype, i + offset), centered, check::tolerance(dtype, 10));
  }
}

}  // namespace

CASE(moments_update) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16}) {
    for (const size_t n : {0, 1, 3, 129, 1031}) {
      check_updates(dtype, n, 0);
      check_updates(dtype, n, 1);
    }
  }
}
