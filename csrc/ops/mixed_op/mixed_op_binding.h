// Shared by the *_torch.cpp files of this folder: the operator's options, and arguments checked into an
// EdgeCall.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "ops/mixed_op/edge.h"

namespace pynas {

// What is not a tensor among the operator's arguments.
struct MixedOpOptions {
  std::vector<int64_t> candidates;
  int64_t family = 0, stride = 1;
  bool affine = false, training = true;
  double eps = 1e-5;
  int64_t save = 1;
};

// The parameters of a candidate in the order of its state_dict.
std::vector<std::vector<int64_t>> parameter_shapes(const CandidateStages& stages, int64_t channels,
                                                   bool affine);

// Checks every argument and lays the mixture out: which parameters, batch norms and slots are whose.
EdgeCall make_edge_call(const at::Tensor& x, const at::Tensor& weights, at::TensorList parameters,
                        at::TensorList running, const MixedOpOptions& options);

// Edges of DARTS with float32 images on the CPU, each candidate at most once, by the
// engine of ops/darts_edge.
bool darts_engine_supports(const EdgeCall& call);
EdgeOutput darts_engine_forward(const EdgeCall& call);
EdgeGradients darts_engine_backward(const EdgeCall& call, const EdgeOutput& forward, const at::Tensor& grad);

using MixedOpForward = std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>>;
using MixedOpBackward = std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>>;

}  // namespace pynas
