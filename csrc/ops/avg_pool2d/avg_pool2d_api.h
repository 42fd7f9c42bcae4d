// What other operators call of avg_pool2d: on the CPU, float32 and bfloat16, without autograd.
#pragma once

#include <ATen/core/Tensor.h>

namespace pynas {

// [N, C, H, W] (channels_last is taken as it is) to the means of its windows, channels_last.
at::Tensor avg_pool2d_torch(const at::Tensor& input, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                            at::IntArrayRef padding, bool count_include_pad);

}  // namespace pynas
