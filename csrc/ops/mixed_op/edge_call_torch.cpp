// The arguments of mixed_op, checked and laid out as an EdgeCall.
#include <ATen/ops/empty.h>

#include <cmath>
#include <string>
#include <utility>

#include "bindings/tensor.h"
#include "ops/mixed_op/mixed_op_binding.h"

namespace pynas {
namespace edge_call_binding {
namespace {

constexpr size_t kMaxCandidates = 64;  // as many as normalized_sum adds up

using Shape = std::vector<int64_t>;

void check_float(const at::Tensor& tensor, const std::string& name) {
  TORCH_CHECK_TYPE(check::is_floating(tensor), "mixed_op: ", name, ": expected a floating tensor, got ",
                   tensor.scalar_type(), "; convert it with .float()");
}

void check_device(const at::Tensor& tensor, const at::Tensor& x, const std::string& name) {
  TORCH_CHECK_VALUE(tensor.device() == x.device(), "mixed_op: ", name, ": expected the device of x, ",
                    x.device(), ", got ", tensor.device(), "; move it with .to(x.device)");
}

at::Tensor converted(const at::Tensor& tensor, at::ScalarType dtype) {
  if (tensor.scalar_type() == dtype && tensor.is_contiguous()) return tensor;
  return tensor.to(dtype).contiguous();
}

void lay_out(EdgeCall& call, const MixedOpOptions& options, std::vector<Shape>& shapes) {
  TORCH_CHECK_VALUE(options.family >= 0 && options.family <= 2, "mixed_op: family: expected 0, 1 or 2, got ",
                    options.family);
  TORCH_CHECK_VALUE(options.save >= 0 && options.save <= 2, "mixed_op: save: expected 0, 1 or 2, got ",
                    options.save);
  TORCH_CHECK_VALUE(options.stride == 1 || options.stride == 2, "mixed_op: stride: expected 1 or 2, got ",
                    options.stride);
  TORCH_CHECK_VALUE(options.candidates.size() <= kMaxCandidates, "mixed_op: candidates: expected at most ",
                    kMaxCandidates, ", got ", options.candidates.size());
  call.family = static_cast<Family>(options.family);
  call.save = static_cast<Save>(options.save);
  call.stride = options.stride;
  call.affine = options.affine;
  call.training = options.training;
  call.eps = options.eps;
  for (const int64_t code : options.candidates) {
    TORCH_CHECK_VALUE(code >= 0 && code < kCandidates && belongs(static_cast<Candidate>(code), call.family),
                      "mixed_op: candidates: expected codes of family ", options.family, ", got ", code);
    EdgeCandidate candidate;
    candidate.kind = static_cast<Candidate>(code);
    candidate.stages = stages_of(candidate.kind, call.family, call.stride);
    candidate.parameter = static_cast<int64_t>(shapes.size());
    for (Shape& shape : parameter_shapes(candidate.stages, call.channels(), call.affine))
      shapes.push_back(std::move(shape));
    candidate.parameters = static_cast<int64_t>(shapes.size()) - candidate.parameter;
    candidate.norm = call.norms;
    candidate.norms = candidate.stages.norms();
    candidate.saved = call.slots;
    candidate.slots = candidate.norms * options.save;
    call.norms += candidate.norms;
    call.slots += candidate.slots;
    call.candidates.push_back(candidate);
  }
}

void take_weights(EdgeCall& call, const at::Tensor& weights, at::ScalarType accumulate) {
  const int64_t count = static_cast<int64_t>(call.candidates.size());
  check_float(weights, "weights");
  TORCH_CHECK_VALUE(weights.dim() == 1 && weights.size(0) == count, "mixed_op: weights: expected shape [",
                    count, "], a weight for each candidate, got ", weights.sizes());
  if (weights.is_cpu()) {
    // Through the accumulate type: what it rounds to zero is zero.
    const at::Tensor values = converted(converted(weights, accumulate), at::kDouble);
    const double* data = values.const_data_ptr<double>();
    call.host_weights.assign(data, data + count);
    for (int64_t k = 0; k < count; ++k) {
      TORCH_CHECK_VALUE(!std::isnan(call.host_weights[k]),
                        "mixed_op: weights: expected numbers, got NaN for ", name_of(call.candidates[k].kind),
                        " (entry ", k, ")");
    }
  } else {
    check_device(weights, call.x, "weights");
  }
  call.weights = converted(weights, accumulate);
  if (call.weights.device() != call.x.device()) call.weights = call.weights.to(call.x.device());
}

void take_parameters(EdgeCall& call, at::TensorList parameters, const std::vector<Shape>& shapes,
                     at::ScalarType accumulate) {
  TORCH_CHECK_VALUE(parameters.size() == shapes.size(), "mixed_op: parameters: expected ", shapes.size(),
                    " tensors (pynas.ops.mixed_op_parameters lists them), got ", parameters.size());
  call.parameters.reserve(shapes.size());
  for (const EdgeCandidate& candidate : call.candidates) {
    for (int64_t i = candidate.parameter; i < candidate.parameter + candidate.parameters; ++i) {
      const at::Tensor& parameter = parameters[i];
      // Names are made where they are needed: this runs for every call.
      if (!check::is_floating(parameter) || parameter.device() != call.x.device()) {
        const std::string name = "parameters[" + std::to_string(i) + "] of " + name_of(candidate.kind);
        check_float(parameter, name);
        check_device(parameter, call.x, name);
      }
      TORCH_CHECK_VALUE(parameter.sizes() == at::IntArrayRef(shapes[i]), "mixed_op: parameters[", i, "] of ",
                        name_of(candidate.kind), ": expected shape ", at::IntArrayRef(shapes[i]), " for the ",
                        call.channels(), " channels of x, got ", parameter.sizes());
      const bool norm = parameter.dim() == 1;
      call.parameters.push_back(converted(parameter, norm ? accumulate : call.x.scalar_type()));
    }
  }
}

void take_running(EdgeCall& call, at::TensorList running, at::ScalarType accumulate) {
  if (call.training) return;
  TORCH_CHECK_VALUE(static_cast<int64_t>(running.size()) == 2 * call.norms,
                    "mixed_op: running: expected mean and variance of ", call.norms, " batch norms, ",
                    2 * call.norms, " tensors, got ", running.size());
  for (size_t i = 0; i < running.size(); ++i) {
    const std::string name = "running[" + std::to_string(i) + "]";
    check_float(running[i], name);
    check_device(running[i], call.x, name);
    TORCH_CHECK_VALUE(running[i].dim() == 1 && running[i].size(0) == call.channels(), "mixed_op: ", name,
                      ": expected shape [", call.channels(), "], got ", running[i].sizes());
    call.running.push_back(converted(running[i], accumulate));
  }
}

}  // namespace
}  // namespace edge_call_binding

std::vector<std::vector<int64_t>> parameter_shapes(const CandidateStages& stages, int64_t channels,
                                                   bool affine) {
  using namespace edge_call_binding;
  const int64_t c = channels;
  std::vector<Shape> shapes;
  for (const CandidateStage& stage : stages) {
    const int64_t k = stage.kernel;
    switch (stage.kind) {
      case StageKind::kMaxPool:
      case StageKind::kAvgPool:
        break;
      case StageKind::kSeparable:
        shapes.insert(shapes.end(), {Shape{c, 1, k, k}, Shape{c, c, 1, 1}});
        break;
      case StageKind::kConvolution:
        shapes.push_back({c, c, k, k});
        break;
      case StageKind::kReduction:
        shapes.insert(shapes.end(), {Shape{c / 2, c, 1, 1}, Shape{c - c / 2, c, 1, 1}});
        break;
    }
    if (affine && stage.norm == StageNorm::kAffine) shapes.insert(shapes.end(), {Shape{c}, Shape{c}});
  }
  return shapes;
}

EdgeCall make_edge_call(const at::Tensor& x, const at::Tensor& weights, at::TensorList parameters,
                        at::TensorList running, const MixedOpOptions& options) {
  using namespace edge_call_binding;
  TORCH_CHECK_VALUE(x.dim() == 4, "mixed_op: x: expected [N, C, H, W], got ", x.sizes());
  const at::ScalarType accumulate = accumulate_type(dtype_of(x, "mixed_op", "x"));
  EdgeCall call;
  call.x = x.is_contiguous(at::MemoryFormat::ChannelsLast) ? x : x.contiguous(at::MemoryFormat::ChannelsLast);
  std::vector<Shape> shapes;
  lay_out(call, options, shapes);
  take_weights(call, weights, accumulate);
  take_parameters(call, parameters, shapes, accumulate);
  take_running(call, running, accumulate);
  if (call.training && call.batch() * call.out_height() * call.out_width() == 1) {
    for (size_t k = 0; k < call.candidates.size(); ++k) {
      TORCH_CHECK_VALUE(call.candidates[k].norms == 0 || !call.active(static_cast<int64_t>(k)),
                        "mixed_op: x: Expected more than 1 value per channel when training, got input size ",
                        x.sizes(), " for ", name_of(call.candidates[k].kind));
    }
  }
  return call;
}

}  // namespace pynas
