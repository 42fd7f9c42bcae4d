// From a DType to the type a kernel template is instantiated for.
#pragma once

#include "common/cuda_compat.h"
#include "common/dtype.h"

namespace pynas::cuda {

template <class T>
struct TypeTag {
  using type = T;
};

// Calls function(TypeTag<T>{}).
template <class F>
void visit_dtype(DType dtype, F&& function) {
  switch (dtype) {
    case DType::kFloat32:
      return function(TypeTag<float>{});
    case DType::kFloat64:
      return function(TypeTag<double>{});
    case DType::kBFloat16:
      return function(TypeTag<__nv_bfloat16>{});
    case DType::kFloat16:
      return function(TypeTag<__half>{});
  }
}

inline int64_t dtype_bytes(DType dtype) {
  if (dtype == DType::kFloat64) return 8;
  return dtype == DType::kFloat32 ? 4 : 2;
}

}  // namespace pynas::cuda
