#include "bindings/candidates.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "ops/mixed_op/mixed_op_binding.h"

namespace pynas {
namespace candidates_binding {
namespace {

using Stage = std::tuple<std::string, int, int, int, std::string>;

Candidate candidate_of(int64_t code) {
  if (code < 0 || code >= kCandidates)
    throw std::invalid_argument("code: expected 0 to " + std::to_string(kCandidates - 1) + ", got " +
                                std::to_string(code));
  return static_cast<Candidate>(code);
}

Family family_of(int64_t code) {
  if (code < 0 || code >= kFamilies)
    throw std::invalid_argument("family: expected 0 to " + std::to_string(kFamilies - 1) + ", got " +
                                std::to_string(code));
  return static_cast<Family>(code);
}

std::string name_of(StageKind kind) {
  switch (kind) {
    case StageKind::kMaxPool:
      return "max_pool";
    case StageKind::kAvgPool:
      return "avg_pool";
    case StageKind::kSeparable:
      return "separable";
    case StageKind::kConvolution:
      return "convolution";
    case StageKind::kReduction:
      return "reduction";
  }
  return {};
}

std::string name_of(StageNorm norm) {
  return norm == StageNorm::kNone ? "none" : norm == StageNorm::kPlain ? "plain" : "affine";
}

std::vector<std::string> candidate_names(int64_t family) {
  std::vector<std::string> names(kCandidates);
  for (int64_t code = 0; code < kCandidates; ++code) {
    const Candidate candidate = candidate_of(code);
    if (belongs(candidate, family_of(family))) names[code] = pynas::name_of(candidate);
  }
  return names;
}

std::vector<Stage> candidate_stages(int64_t code, int64_t family, int64_t stride) {
  std::vector<Stage> result;
  for (const CandidateStage& stage : stages_of(candidate_of(code), family_of(family), stride)) {
    const int step = result.empty() ? static_cast<int>(stride) : 1;
    result.emplace_back(name_of(stage.kind), stage.kernel, step, stage.dilation, name_of(stage.norm));
  }
  return result;
}

std::vector<std::vector<int64_t>> candidate_parameters(int64_t code, int64_t family, int64_t channels,
                                                       int64_t stride, bool affine) {
  return parameter_shapes(stages_of(candidate_of(code), family_of(family), stride), channels, affine);
}

}  // namespace
}  // namespace candidates_binding

void bind_candidates(pybind11::module_& m) {
  using namespace candidates_binding;
  namespace py = pybind11;
  m.def("candidate_names", &candidate_names, py::arg("family"),
        "Names of the candidates of mixed_op at their codes; empty where one is not of the family.");
  m.def("candidate_stages", &candidate_stages, py::arg("code"), py::arg("family"), py::arg("stride"),
        "What a candidate consists of: (kind, kernel, stride, dilation, norm) of each stage.");
  m.def("candidate_parameters", &candidate_parameters, py::arg("code"), py::arg("family"),
        py::arg("channels"), py::arg("stride"), py::arg("affine"),
        "Shapes of a candidate's parameters in the order of its state_dict.");
}

}  // namespace pynas
