// The 3x3 convolution of stride 1 and padding 1 on the CPU, for C++ callers that hold torch tensors.
// y = conv(x, weight), or conv(relu(x), weight) with `relu`. Defined in conv3x3_torch.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace pynas {

// Whether the kernel takes these and is expected to be faster than at::convolution: on the CPU, both
// float32 or both bfloat16, x [N, C, H, W] channels_last, weight [O, C, 3, 3] of any strides, and
// sizes within the limits in conv3x3_torch.cpp.
bool conv3x3_supports(const at::Tensor& x, const at::Tensor& weight);

// y [N, O, H, W], channels_last, of x's dtype.
at::Tensor conv3x3_forward(const at::Tensor& x, const at::Tensor& weight, bool relu);

// dL/dx [N, C, H, W], channels_last, of grad's dtype. With `relu` x is what forward saw before its ReLU and
// the result is 0 where x <= 0; without, x may be nullopt. `addend` [N, C, H, W] is added to the result.
at::Tensor conv3x3_backward_input(const at::Tensor& grad, const at::Tensor& weight,
                                  const std::optional<at::Tensor>& x, bool relu,
                                  const std::optional<at::Tensor>& addend = std::nullopt);

// dL/dweight summed over each of `groups` equal runs of consecutive samples: [groups, O, C, 3, 3], always
// float32, for several groups a view of [groups, 3, 3, C, O]. x as forward saw it
// (before its ReLU with `relu`).
at::Tensor conv3x3_backward_weight(const at::Tensor& grad, const at::Tensor& x, bool relu,
                                   int64_t groups = 1);

}  // namespace pynas
