// The bridge between torch tensors and kernel parameters. Only bindings and *_torch.cpp files include torch.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/library.h>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

// at::parallel_for behind the torch-free interface of common/parallel.h.
inline Parallel torch_parallel() {
  Parallel parallel;
  parallel.threads = at::get_num_threads();
  parallel.run = [](int64_t tasks, int64_t grain, Parallel::Body body, void* context) {
    at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) { body(context, begin, end); });
  };
  return parallel;
}

inline DType dtype_of(const at::Tensor& tensor, const char* op, const char* argument) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return DType::kFloat32;
    case at::kDouble:
      return DType::kFloat64;
    case at::kBFloat16:
      return DType::kBFloat16;
    case at::kHalf:
      return DType::kFloat16;
    default:
      TORCH_CHECK_TYPE(false, op, ": ", argument, ": expected float32, float64, bfloat16 or float16, got ",
                       tensor.scalar_type());
  }
}

// Sums are kept in float32, and in float64 for float64 inputs.
inline at::ScalarType accumulate_type(DType dtype) {
  return dtype == DType::kFloat64 ? at::kDouble : at::kFloat;
}

// The current stream of the tensor's device, from libc10 alone: c10/cuda headers need a CUDA build of torch.
inline void* current_stream(const at::Tensor& tensor) {
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  return guard.getStreamNativeHandle(guard.getStream(tensor.device()));
}

}  // namespace pynas

#if defined(PYNAS_WITH_CUDA)
#define PYNAS_DISPATCH_DEVICE(tensor, function, params)                 \
  do {                                                                  \
    if ((tensor).is_cuda()) {                                           \
      const c10::DeviceGuard guard((tensor).device());                  \
      ::pynas::cuda::function(params, ::pynas::current_stream(tensor)); \
    } else {                                                            \
      PYNAS_DISPATCH_ISA(function, params, ::pynas::torch_parallel());  \
    }                                                                   \
  } while (false)
#define PYNAS_REGISTER(op, function)                            \
  TORCH_LIBRARY_IMPL(pynas, CPU, m) { m.impl(#op, &function); } \
  TORCH_LIBRARY_IMPL(pynas, CUDA, m) { m.impl(#op, &function); }
#else
#define PYNAS_DISPATCH_DEVICE(tensor, function, params) \
  PYNAS_DISPATCH_ISA(function, params, ::pynas::torch_parallel())
#define PYNAS_REGISTER(op, function) \
  TORCH_LIBRARY_IMPL(pynas, CPU, m) { m.impl(#op, &function); }
#endif
