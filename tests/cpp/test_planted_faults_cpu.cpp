// Faults planted in plain code, to show that the build of the CPU kernels reports each kind.
#include <limits>

#include "buffers.h"

CASE(planted_none) {
  const check::Buffer three(3 * sizeof(float));
  check::store(pynas::DType::kFloat32, three.data(), 2, 1.0);
}
CASE(planted_write_beyond) {
  const check::Buffer three(3 * sizeof(float));
  check::store(pynas::DType::kFloat32, three.data(), 3, 1.0);
}
CASE(planted_overflow) {
  volatile int most = std::numeric_limits<int>::max();
  check::expect_close("sum", most + 1, 0, 1e300);
}
CASE(planted_wrong_value) { check::expect_close("value", 1, 2, 0.5); }
