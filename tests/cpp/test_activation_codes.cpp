// activation_codes against bits compared one by one.
#include "buffers.h"
#include "kernels.h"
#include "ops/activation_codes/activation_codes.h"

namespace {

using check::Buffer;
using pynas::DType;

double value_at(const std::vector<double>& values, size_t features, size_t row, size_t f) {
  return values[row * features + f];
}

// `spare` words of a row beyond those with bits must come out as zeros.
void check_codes(DType dtype, size_t batch, size_t features, size_t spare) {
  const size_t element = check::dtype_bytes(dtype), words = (features + 63) / 64;
  const size_t stride = words + spare;
  const Buffer x(batch * features * element), codes(batch * stride * 8), agreement(batch * batch * 8);
  auto values = check::random_values(batch * features, unsigned(batch + features));
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % 7 == 3) values[i] = 0;
    if (i % 11 == 5) values[i] = std::nan("");
    check::store(dtype, x.data(), i, values[i]);
  }
  pynas::ActivationCodesParams pack;
  pack.x = x.data();
  pack.codes = codes.as<uint64_t>();
  pack.batch = int64_t(batch);
  pack.features = int64_t(features);
  pack.stride = int64_t(stride);
  pack.dtype = dtype;
  kernels::activation_codes(pack, check::kWhere);
  for (size_t b = 0; b < batch; ++b) {
    for (size_t f = 0; f < stride * 64; ++f) {
      const double bit = double(codes.as<uint64_t>()[b * stride + f / 64] >> (f % 64) & 1);
      check::expect_close("bit", bit, f < features && value_at(values, features, b, f) > 0, 0);
    }
  }
  for (size_t i = 0; i < batch * batch; ++i) agreement.as<int64_t>()[i] = int64_t(i);
  pynas::CodeAgreementParams p;
  p.codes = codes.as<uint64_t>();
  p.agreement = agreement.as<int64_t>();
  p.batch = int64_t(batch);
  p.words = p.stride = int64_t(stride);
  p.features = int64_t(features);
  p.times = 3;
  kernels::code_agreement(p, check::kWhere);
  for (size_t i = 0; i < batch; ++i) {
    for (size_t j = 0; j < batch; ++j) {
      double expected = double(i * batch + j);
      for (size_t f = 0; f < features; ++f) {
        expected += 3 * ((value_at(values, features, i, f) > 0) == (value_at(values, features, j, f) > 0));
      }
      check::expect_close("agreement", double(agreement.as<int64_t>()[i * batch + j]), expected, 0);
    }
  }
}

}  // namespace

CASE(activation_codes) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16}) {
    check_codes(dtype, 3, 129, 0);
    check_codes(dtype, 2, 64, 7);
  }
  check_codes(DType::kFloat32, 1, 1, 0);
  check_codes(DType::kFloat32, 33, 2050, 5);
  check_codes(DType::kFloat32, 70, 100, 0);
}
