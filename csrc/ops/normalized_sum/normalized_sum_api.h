// What other operators call of normalized_sum, on any device and without autograd: the pieces of
//
//   y      = sum_k w_k n_k(z_k)
//   n_k(z) = gamma_k (z - mu_k) r_k + beta_k per channel, or z where input k is added as it is
//
// K <= 64 inputs of one shape, [N, C], [N, C, H, W] (channels_last is fastest) or [N, C, ...]; float32,
// bfloat16, float16 or float64. S is float32, and float64 for float64 inputs.
//
// An input whose weight is exactly 0 is not read, neither for statistics nor for gradients; with the weights
// on a GPU they are read there, by the kernels, so that no call waits for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pynas {

struct NormalizedSumCall {
  std::vector<at::Tensor> inputs;                     // K of one shape, dtype, device
  at::Tensor weights;                                 // [K] floating, same device; undefined: all ones
  uint64_t normalized = ~uint64_t{0};                 // bit k: batch-normalise z_k; else it is added as it is
  std::vector<at::Tensor> gamma, beta;                // empty, or K tensors: [C] or undefined (ones, zeros)
  std::vector<at::Tensor> running_mean, running_var;  // read when !batch_statistics: K tensors [C]
  bool batch_statistics = true;                       // else the running ones
  double eps = 1e-5;
};

// [K, C] of S each; var is the biased one. Rows of inputs that are added as they are: mean 0, rstd 1, var 0.
// With batch statistics, rows of inputs whose weight is zero are all 0. With running ones, mean and rstd have
// the rows of every input, and var is empty [0].
struct NormalizedSumStatistics {
  at::Tensor mean, rstd, var;
};

struct NormalizedSumGradients {
  at::Tensor weights;       // [K], in the dtype of the weights (S when those are undefined)
  at::Tensor gamma, beta;   // [K, C] of S; zeros where z_k is not normalised
  at::Tensor coefficients;  // [3, K, C] of S, a to c of dL/dz_k = a_k g + b_k z_k + c_k
};

// One read of every normalised z_k (none when the statistics are running ones).
NormalizedSumStatistics normalized_sum_statistics(const NormalizedSumCall& call);

// y in the layout of the first input: one read of every z_k, one write.
at::Tensor normalized_sum_apply(const NormalizedSumCall& call, const NormalizedSumStatistics& statistics);

// All gradients but those of the inputs, whose coefficients it gives: one read of every z_k, and of g one on
// the CPU and one for every four inputs on CUDA.
NormalizedSumGradients normalized_sum_reduce(const at::Tensor& grad_output, const NormalizedSumCall& call,
                                             const NormalizedSumStatistics& statistics);

// dL/dz_k for every k of the bit set `wanted`, in ascending order: one read of g and the z_k, one write each.
// The coefficients are those of normalized_sum_reduce.
std::vector<at::Tensor> normalized_sum_input_gradients(const at::Tensor& grad_output,
                                                       const NormalizedSumCall& call,
                                                       const at::Tensor& coefficients, uint64_t wanted);

// running <- (1 - momentum) running + momentum batch, in place, with the unbiased variance. Inputs whose
// weight is zero, that are added as they are, or whose running_mean is undefined are left out.
void normalized_sum_update_running(const NormalizedSumCall& call, const NormalizedSumStatistics& statistics,
                                   double momentum);

}  // namespace pynas
