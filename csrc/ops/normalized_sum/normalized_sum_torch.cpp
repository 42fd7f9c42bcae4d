#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <tuple>
#include <utility>

#include "bindings/tensor.h"
#include "bindings/update.h"
#include "ops/normalized_sum/normalized_sum.h"
#include "ops/normalized_sum/normalized_sum_api.h"

namespace pynas {
namespace normalized_sum_binding {
namespace {

constexpr const char* kOp = "normalized_sum";
using Statistics = NormalizedSumStatistics;
using Gradients = NormalizedSumGradients;

bool has(uint64_t mask, size_t k) { return (mask >> k & 1u) != 0; }
at::Tensor entry(const std::vector<at::Tensor>& tensors, size_t k) {
  return tensors.empty() ? at::Tensor() : tensors[k];
}

// A call with its tensors in the layout and dtype that the kernels take; they stay alive with it.
class Prepared {
 public:
  explicit Prepared(const NormalizedSumCall& call, const at::Tensor& grad_output = {}) : call_(call) {
    const size_t count = call.inputs.size();
    TORCH_CHECK_VALUE(count >= 1 && count <= NormalizedSumParams::kMaxInputs, kOp, ": inputs: expected 1 to ",
                      +NormalizedSumParams::kMaxInputs, " tensors, got ", count);
    const at::Tensor& first = call.inputs[0];
    TORCH_CHECK_VALUE(first.dim() >= 2, kOp, ": inputs[0]: expected [N, C, ...], got ", first.sizes());
    params.dtype = dtype_of(first, kOp, "inputs[0]");
    sums = accumulate_type(params.dtype);
    storage = first.scalar_type() == at::kHalf && first.is_cpu() ? at::kFloat : first.scalar_type();
    if (storage == at::kFloat) params.dtype = DType::kFloat32;
    format = first.suggest_memory_format();
    check_inputs();
    take_weights();
    params.count = static_cast<int>(count);
    params.channels = first.size(1);
    const int64_t values = params.channels == 0 ? 0 : first.numel() / params.channels;
    const bool rows = first.dim() == 2 || format != at::MemoryFormat::Contiguous;
    params.outer = rows ? values : first.size(0);
    params.inner = rows ? 1 : values / std::max<int64_t>(1, first.size(0));
    params.normalized = call.normalized;
    params.batch_statistics = call.batch_statistics;
    params.eps = call.eps;
    for (size_t k = 0; k < count; ++k) {
      params.inputs[k] = skipped(k) ? nullptr : keep(dense(call.inputs[k]));
      if (!has(call.normalized, k)) continue;
      params.gamma[k] = per_channel(entry(call.gamma, k), "gamma", k);
      params.beta[k] = per_channel(entry(call.beta, k), "beta", k);
    }
    if (grad_output.defined()) {
      TORCH_CHECK_VALUE(grad_output.sizes() == first.sizes() && grad_output.device() == first.device(), kOp,
                        ": grad_output: expected ", first.sizes(), " on ", first.device(), ", got ",
                        grad_output.sizes(), " on ", grad_output.device());
      params.grad_output = keep(dense(grad_output));
    }
  }

  bool empty() const { return params.outer * params.inner * params.channels == 0; }
  at::Tensor table(int64_t tables = 1) const {  // [K, C] of S, or [tables, K, C]
    const auto options = call_.inputs[0].options().dtype(sums);
    return tables == 1 ? at::empty({params.count, params.channels}, options)
                       : at::empty({tables, params.count, params.channels}, options);
  }
  at::Tensor like_input() const {
    return at::empty(call_.inputs[0].sizes(), call_.inputs[0].options().dtype(storage), format);
  }
  const void* per_channel(const at::Tensor& tensor, const char* name, size_t k) {
    if (!tensor.defined()) return nullptr;
    TORCH_CHECK_VALUE(tensor.dim() == 1 && tensor.size(0) == params.channels &&
                          tensor.device() == call_.inputs[0].device() && check::is_floating(tensor),
                      kOp, ": ", name, "[", k, "]: expected ", params.channels, " floating values on ",
                      call_.inputs[0].device(), ", got ", tensor.scalar_type(), " ", tensor.sizes(), " on ",
                      tensor.device());
    return keep(tensor.to(sums).contiguous());
  }
  void read(const Statistics& statistics) {
    for (const auto& [tensor, name] : {std::pair{&statistics.mean, "mean"}, {&statistics.rstd, "rstd"}}) {
      TORCH_CHECK_VALUE(tensor->dim() == 2 && tensor->size(0) == params.count &&
                            tensor->size(1) == params.channels && tensor->scalar_type() == sums &&
                            tensor->is_contiguous() && tensor->device() == call_.inputs[0].device(),
                        kOp, ": ", name, ": expected what the forward pass returned, [", params.count, ", ",
                        params.channels, "] of ", sums, ", got ", tensor->scalar_type(), " ",
                        tensor->sizes());
    }
    params.mean = const_cast<void*>(statistics.mean.const_data_ptr());
    params.rstd = const_cast<void*>(statistics.rstd.const_data_ptr());
  }
  void allocate_workspace() {
    int64_t bytes = 0;
#if defined(PYNAS_WITH_CUDA)
    if (call_.inputs[0].is_cuda()) {
      cuda::normalized_sum_workspace(params, bytes);
    } else
#endif
    {
      PYNAS_DISPATCH_ISA(normalized_sum_workspace, params, torch_parallel(), bytes);
    }
    at::Tensor workspace = at::empty({bytes}, call_.inputs[0].options().dtype(at::kByte));
    params.workspace = workspace.mutable_data_ptr();
    keep(std::move(workspace));
  }

  NormalizedSumParams params;
  at::ScalarType sums, storage;
  at::MemoryFormat format;

 private:
  at::Tensor dense(const at::Tensor& tensor) const { return tensor.to(storage).contiguous(format); }
  const void* keep(at::Tensor tensor) {
    alive_.push_back(std::move(tensor));
    return alive_.back().const_data_ptr();
  }
  // Known here only on the CPU; elsewhere the kernels look.
  bool skipped(size_t k) const {
    if (params.weights == nullptr || !call_.inputs[0].is_cpu()) return false;
    return sums == at::kDouble ? static_cast<const double*>(params.weights)[k] == 0.0
                               : static_cast<const float*>(params.weights)[k] == 0.0f;
  }
  void check_inputs() const {
    const at::Tensor& first = call_.inputs[0];
    for (size_t k = 1; k < call_.inputs.size(); ++k) {
      const at::Tensor& other = call_.inputs[k];
      TORCH_CHECK_VALUE(other.sizes() == first.sizes() && other.scalar_type() == first.scalar_type() &&
                            other.device() == first.device(),
                        kOp, ": inputs[", k, "]: expected ", first.scalar_type(), " ", first.sizes(), " on ",
                        first.device(), " as inputs[0], got ", other.scalar_type(), " ", other.sizes(),
                        " on ", other.device());
    }
    for (const auto& [list, name] : {std::pair{&call_.gamma, "gamma"},
                                     {&call_.beta, "beta"},
                                     {&call_.running_mean, "running_mean"},
                                     {&call_.running_var, "running_var"}}) {
      TORCH_CHECK_VALUE(list->empty() || list->size() == call_.inputs.size(), kOp, ": ", name, ": expected ",
                        call_.inputs.size(), " entries, one for each input, or none, got ", list->size());
    }
  }
  void take_weights() {
    const at::Tensor& weights = call_.weights;
    if (!weights.defined()) return;
    const int64_t count = static_cast<int64_t>(call_.inputs.size());
    TORCH_CHECK_VALUE(weights.dim() == 1 && weights.size(0) == count && check::is_floating(weights) &&
                          weights.device() == call_.inputs[0].device(),
                      kOp, ": weights: expected ", count, " floating values, one for each input, on ",
                      call_.inputs[0].device(), ", got ", weights.scalar_type(), " ", weights.sizes(), " on ",
                      weights.device());
    const at::Tensor values = weights.to(sums).contiguous();
    params.weights = keep(values);
    if (!values.is_cpu()) return;
    for (int64_t k = 0; k < count; ++k) {
      const double value =
          sums == at::kDouble ? values.const_data_ptr<double>()[k] : values.const_data_ptr<float>()[k];
      TORCH_CHECK_VALUE(!std::isnan(value), kOp, ": weights: expected numbers, got NaN at ", k);
    }
  }

  const NormalizedSumCall& call_;
  std::vector<at::Tensor> alive_;
};

// Running statistics as mean and rstd [K, C]; inputs that are added as they are have mean 0 and rstd 1.
Statistics running_statistics(const NormalizedSumCall& call, Prepared& prepared) {
  const auto options = call.inputs[0].options().dtype(prepared.sums);
  std::vector<at::Tensor> mean, rstd;
  for (size_t k = 0; k < call.inputs.size(); ++k) {
    if (!has(call.normalized, k)) {
      mean.push_back(at::zeros({prepared.params.channels}, options));
      rstd.push_back(at::ones({prepared.params.channels}, options));
      continue;
    }
    const at::Tensor running_mean = entry(call.running_mean, k), running_var = entry(call.running_var, k);
    TORCH_CHECK_VALUE(running_mean.defined() && running_var.defined(), kOp,
                      ": running: expected a mean and a ", "variance for input ", k,
                      ", which is normalised by them");
    prepared.per_channel(running_mean, "running_mean", k);
    prepared.per_channel(running_var, "running_var", k);
    mean.push_back(running_mean.detach().to(prepared.sums));
    rstd.push_back(running_var.detach().to(prepared.sums).add(call.eps).rsqrt());
  }
  return {at::stack(mean), at::stack(rstd), at::empty({0}, options)};
}

Statistics statistics_of(const NormalizedSumCall& call, Prepared& prepared) {
  if (!call.batch_statistics) return running_statistics(call, prepared);
  Statistics statistics{prepared.table(), prepared.table(), prepared.table()};
  if (prepared.empty()) return {statistics.mean.zero_(), statistics.rstd.zero_(), statistics.var.zero_()};
  prepared.params.mean = statistics.mean.mutable_data_ptr();
  prepared.params.rstd = statistics.rstd.mutable_data_ptr();
  prepared.params.var = statistics.var.mutable_data_ptr();
  if (prepared.params.workspace == nullptr) prepared.allocate_workspace();
  PYNAS_DISPATCH_DEVICE(call.inputs[0], normalized_sum_statistics, prepared.params);
  return statistics;
}

at::Tensor apply(const NormalizedSumCall& call, Prepared& prepared, const Statistics& statistics) {
  at::Tensor y = prepared.like_input();
  if (prepared.empty()) return y.to(call.inputs[0].scalar_type());
  prepared.read(statistics);
  prepared.params.output = y.mutable_data_ptr();
  if (prepared.params.workspace == nullptr) prepared.allocate_workspace();
  PYNAS_DISPATCH_DEVICE(call.inputs[0], normalized_sum_apply, prepared.params);
  return y.to(call.inputs[0].scalar_type());
}

Gradients reduce(const NormalizedSumCall& call, Prepared& prepared, const Statistics& statistics) {
  const auto options = call.inputs[0].options().dtype(prepared.sums);
  Gradients gradients{at::empty({prepared.params.count}, options), prepared.table(), prepared.table(),
                      prepared.table(3)};
  if (prepared.empty()) {
    for (at::Tensor* tensor :
         {&gradients.weights, &gradients.gamma, &gradients.beta, &gradients.coefficients})
      tensor->zero_();
  } else {
    prepared.read(statistics);
    prepared.params.grad_weights = gradients.weights.mutable_data_ptr();
    prepared.params.grad_gamma = gradients.gamma.mutable_data_ptr();
    prepared.params.grad_beta = gradients.beta.mutable_data_ptr();
    prepared.params.coefficients = gradients.coefficients.mutable_data_ptr();
    if (prepared.params.workspace == nullptr) prepared.allocate_workspace();
    PYNAS_DISPATCH_DEVICE(call.inputs[0], normalized_sum_reduce, prepared.params);
  }
  if (call.weights.defined()) gradients.weights = gradients.weights.to(call.weights.scalar_type());
  return gradients;
}

std::vector<at::Tensor> input_gradients(const NormalizedSumCall& call, Prepared& prepared,
                                        const at::Tensor& coefficients, uint64_t wanted) {
  std::vector<at::Tensor> gradients;
  NormalizedSumParams& params = prepared.params;
  for (size_t k = 0; k < call.inputs.size(); ++k) {
    if (!has(wanted, k)) continue;
    gradients.push_back(prepared.like_input());
    params.input_gradients[k] = gradients.back().mutable_data_ptr();
  }
  if (!prepared.empty() && !gradients.empty()) {
    TORCH_CHECK_VALUE(coefficients.is_contiguous() && coefficients.scalar_type() == prepared.sums &&
                          coefficients.numel() == 3 * params.count * params.channels,
                      kOp, ": coefficients: expected those of normalized_sum_reduce, got ",
                      coefficients.scalar_type(), " ", coefficients.sizes());
    params.coefficients = const_cast<void*>(coefficients.const_data_ptr());
    if (params.workspace == nullptr) prepared.allocate_workspace();
    PYNAS_DISPATCH_DEVICE(call.inputs[0], normalized_sum_input_gradients, params);
  }
  for (at::Tensor& gradient : gradients) gradient = gradient.to(call.inputs[0].scalar_type());
  return gradients;
}

}  // namespace
}  // namespace normalized_sum_binding

NormalizedSumStatistics normalized_sum_statistics(const NormalizedSumCall& call) {
  using namespace normalized_sum_binding;
  Prepared prepared(call);
  return statistics_of(call, prepared);
}

at::Tensor normalized_sum_apply(const NormalizedSumCall& call, const NormalizedSumStatistics& statistics) {
  using namespace normalized_sum_binding;
  Prepared prepared(call);
  return apply(call, prepared, statistics);
}

NormalizedSumGradients normalized_sum_reduce(const at::Tensor& grad_output, const NormalizedSumCall& call,
                                             const NormalizedSumStatistics& statistics) {
  using namespace normalized_sum_binding;
  Prepared prepared(call, grad_output);
  return reduce(call, prepared, statistics);
}

std::vector<at::Tensor> normalized_sum_input_gradients(const at::Tensor& grad_output,
                                                       const NormalizedSumCall& call,
                                                       const at::Tensor& coefficients, uint64_t wanted) {
  using namespace normalized_sum_binding;
  Prepared prepared(call, grad_output);
  return input_gradients(call, prepared, coefficients, wanted);
}

namespace normalized_sum_binding {
namespace {

// K rows of C numbers are too few to be worth a kernel for each instruction set.
template <class S>
void update_running_cpu(const NormalizedSumRunningParams& p) {
  for (int k = 0; k < p.count; ++k) {
    if (p.running_mean[k] == nullptr) continue;
    if (p.weights != nullptr && static_cast<const S*>(p.weights)[k] == S(0)) continue;
    S *mean = static_cast<S*>(p.running_mean[k]), *var = static_cast<S*>(p.running_var[k]);
    const S *batch_mean = static_cast<const S*>(p.mean) + k * p.channels,
            *batch_var = static_cast<const S*>(p.var) + k * p.channels;
    const S momentum = static_cast<S>(p.momentum), unbias = static_cast<S>(p.unbias);
    for (int64_t c = 0; c < p.channels; ++c) {
      mean[c] = (S(1) - momentum) * mean[c] + momentum * batch_mean[c];
      var[c] = (S(1) - momentum) * var[c] + momentum * unbias * batch_var[c];
    }
  }
}

// running_mean[i] and running_var[i] are those of row rows[i] of mean and var.
void update_running(const std::vector<at::Tensor>& running_mean, const std::vector<at::Tensor>& running_var,
                    const std::vector<size_t>& rows, const at::Tensor& weights, const at::Tensor& mean,
                    const at::Tensor& var, double momentum, int64_t values) {
  if (values == 0 || mean.numel() == 0 || rows.empty()) return;
  NormalizedSumRunningParams params;
  const at::ScalarType sums = mean.scalar_type();
  const at::Tensor factors = weights.defined() ? weights.to(sums).contiguous() : at::Tensor();
  std::vector<std::pair<at::Tensor, at::Tensor>> narrow;  // running statistics of another dtype, and copies
  params.count = static_cast<int>(mean.size(0));
  params.channels = mean.size(1);
  const auto address = [&](const at::Tensor& tensor, const char* name, size_t k) {
    TORCH_CHECK_VALUE(tensor.dim() == 1 && tensor.size(0) == params.channels && check::is_floating(tensor) &&
                          tensor.device() == mean.device(),
                      kOp, ": ", name, "[", k, "]: expected ", params.channels, " floating values on ",
                      mean.device(), ", got ", tensor.scalar_type(), " ", tensor.sizes(), " on ",
                      tensor.device());
    if (tensor.scalar_type() == sums && tensor.is_contiguous()) {
      check::bump_version(tensor);
      return tensor.mutable_data_ptr();
    }
    narrow.emplace_back(tensor, tensor.detach().to(sums).contiguous());
    return narrow.back().second.mutable_data_ptr();
  };
  for (size_t i = 0; i < rows.size(); ++i) {
    params.running_mean[rows[i]] = address(running_mean[i], "running_mean", rows[i]);
    params.running_var[rows[i]] = address(running_var[i], "running_var", rows[i]);
  }
  params.mean = mean.const_data_ptr();
  params.var = var.const_data_ptr();
  params.weights = factors.defined() ? factors.const_data_ptr() : nullptr;
  params.momentum = momentum;
  params.unbias = values > 1 ? static_cast<double>(values) / static_cast<double>(values - 1) : 1.0;
  params.is_double = sums == at::kDouble;
#if defined(PYNAS_WITH_CUDA)
  if (mean.is_cuda()) {
    const c10::DeviceGuard guard(mean.device());
    cuda::normalized_sum_update_running(params, current_stream(mean));
  } else
#endif
  {
    params.is_double ? update_running_cpu<double>(params) : update_running_cpu<float>(params);
  }
  for (const auto& [tensor, copy] : narrow) tensor.detach().copy_(copy);
}

}  // namespace
}  // namespace normalized_sum_binding

void normalized_sum_update_running(const NormalizedSumCall& call, const NormalizedSumStatistics& statistics,
                                   double momentum) {
  using namespace normalized_sum_binding;
  std::vector<at::Tensor> means, vars;
  std::vector<size_t> rows;
  for (size_t k = 0; k < call.inputs.size(); ++k) {
    if (!has(call.normalized, k) || !entry(call.running_mean, k).defined()) continue;
    means.push_back(call.running_mean[k]);
    vars.push_back(call.running_var[k]);
    rows.push_back(k);
  }
  const int64_t channels = statistics.mean.size(1);
  update_running(means, vars, rows, call.weights, statistics.mean, statistics.var, momentum,
                 channels == 0 ? 0 : call.inputs[0].numel() / channels);
}

namespace normalized_sum_binding {
namespace {

// Entry k of the result is the next of `tensors` where bit k of `which` is set, and undefined elsewhere. With
// no bit set the result is empty.
std::vector<at::Tensor> spread(at::TensorList tensors, int64_t which, size_t count, const char* name) {
  check::mask(kOp, name, which, count);
  TORCH_CHECK_VALUE(check::count_bits(which) == static_cast<int64_t>(tensors.size()), kOp, ": ", name,
                    ": expected a bit of its mask for each of the ", tensors.size(),
                    " tensors, got the mask ", which);
  std::vector<at::Tensor> entries(which == 0 ? 0 : count);
  size_t next = 0;
  for (size_t k = 0; k < entries.size(); ++k)
    if (has(static_cast<uint64_t>(which), k)) entries[k] = tensors[next++];
  return entries;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> normalized_sum_torch(
    at::TensorList inputs, const at::Tensor& weights, int64_t normalized, at::TensorList gamma,
    int64_t gamma_of, at::TensorList beta, int64_t beta_of, at::TensorList running_mean,
    at::TensorList running_var, bool batch_statistics, double eps) {
  const size_t count = inputs.size();
  check::mask(kOp, "normalized", normalized, count);
  const int64_t running_of = running_mean.empty() ? 0 : normalized;
  NormalizedSumCall call{inputs.vec(),
                         weights,
                         static_cast<uint64_t>(normalized),
                         spread(gamma, gamma_of, count, "gamma"),
                         spread(beta, beta_of, count, "beta"),
                         spread(running_mean, running_of, count, "running_mean"),
                         spread(running_var, running_of, count, "running_var"),
                         batch_statistics,
                         eps};
  Prepared prepared(call);
  const Statistics statistics = statistics_of(call, prepared);
  return {apply(call, prepared, statistics), statistics.mean, statistics.rstd, statistics.var};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, std::vector<at::Tensor>> normalized_sum_backward_torch(
    const at::Tensor& grad_output, at::TensorList inputs, const at::Tensor& weights, int64_t normalized,
    at::TensorList gamma, int64_t gamma_of, at::TensorList beta, int64_t beta_of, const at::Tensor& mean,
    const at::Tensor& rstd, bool batch_statistics, double eps, int64_t wanted) {
  check::mask(kOp, "normalized", normalized, inputs.size());
  check::mask(kOp, "wanted", wanted, inputs.size());
  NormalizedSumCall call;
  call.inputs = inputs.vec();
  call.weights = weights;
  call.normalized = static_cast<uint64_t>(normalized);
  call.gamma = spread(gamma, gamma_of, inputs.size(), "gamma");
  call.beta = spread(beta, beta_of, inputs.size(), "beta");
  call.batch_statistics = batch_statistics;
  call.eps = eps;
  Prepared prepared(call, grad_output);
  const Gradients gradients = reduce(call, prepared, {mean.contiguous(), rstd.contiguous(), {}});
  return {gradients.weights, gradients.gamma, gradients.beta,
          input_gradients(call, prepared, gradients.coefficients, static_cast<uint64_t>(wanted))};
}

void update_running_torch(at::TensorList running_mean, at::TensorList running_var, const at::Tensor& weights,
                          const at::Tensor& mean, const at::Tensor& var, int64_t which, double momentum,
                          int64_t values) {
  TORCH_CHECK_VALUE(mean.dim() == 2 && mean.size(0) <= NormalizedSumParams::kMaxInputs &&
                        (mean.scalar_type() == at::kFloat || mean.scalar_type() == at::kDouble),
                    kOp, ": mean: expected float32 or float64 [inputs, channels] of at most ",
                    +NormalizedSumParams::kMaxInputs, " inputs, got ", mean.scalar_type(), " ", mean.sizes());
  TORCH_CHECK_VALUE(var.sizes() == mean.sizes() && var.scalar_type() == mean.scalar_type(), kOp,
                    ": var: expected ", mean.scalar_type(), " ", mean.sizes(), " as mean, got ",
                    var.scalar_type(), " ", var.sizes());
  TORCH_CHECK_VALUE(weights.dim() == 1 && weights.size(0) == mean.size(0) && check::is_floating(weights), kOp,
                    ": weights: expected ", mean.size(0), " floating values, one for each input, got ",
                    weights.scalar_type(), " ", weights.sizes());
  TORCH_CHECK_VALUE(values >= 0, kOp, ": values: expected the number of values per channel, got ", values);
  const size_t count = static_cast<size_t>(mean.size(0));
  check::mask(kOp, "which", which, count);
  std::vector<size_t> rows;
  for (size_t k = 0; k < count; ++k)
    if (has(static_cast<uint64_t>(which), k)) rows.push_back(k);
  TORCH_CHECK_VALUE(rows.size() == running_mean.size() && rows.size() == running_var.size(), kOp,
                    ": running: expected ", rows.size(), " means and variances, got ", running_mean.size(),
                    " and ", running_var.size());
  std::vector<check::Target> targets;
  for (size_t i = 0; i < rows.size(); ++i) {
    targets.push_back({"running_mean", static_cast<int64_t>(i), &running_mean[i]});
    targets.push_back({"running_var", static_cast<int64_t>(i), &running_var[i]});
  }
  check::updated(kOp, targets, {{"weights", -1, &weights}, {"mean", -1, &mean}, {"var", -1, &var}});
  update_running(running_mean.vec(), running_var.vec(), rows, weights, mean.contiguous(), var.contiguous(),
                 momentum, values);
}

}  // namespace
}  // namespace normalized_sum_binding

// A list of tensors that not every input has comes with a mask of the inputs it is for.
TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.normalized_sum");
  m.def(
      "normalized_sum(Tensor[] inputs, Tensor weights, int normalized, Tensor[] gamma, int gamma_of, "
      "Tensor[] beta, int beta_of, Tensor[] running_mean, Tensor[] running_var, bool batch_statistics, float "
      "eps) "
      "-> (Tensor, Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "normalized_sum_backward(Tensor grad_output, Tensor[] inputs, Tensor weights, int normalized, "
      "Tensor[] gamma, int gamma_of, Tensor[] beta, int beta_of, Tensor mean, Tensor rstd, "
      "bool batch_statistics, float eps, int wanted) -> (Tensor, Tensor, Tensor, Tensor[])",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "normalized_sum_update_running(Tensor(a!)[] running_mean, Tensor(b!)[] running_var, Tensor weights, "
      "Tensor mean, Tensor var, int which, float momentum, SymInt values) -> ()",
      {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(normalized_sum, normalized_sum_binding::normalized_sum_torch)
PYNAS_REGISTER(normalized_sum_backward, normalized_sum_binding::normalized_sum_backward_torch)
PYNAS_REGISTER(normalized_sum_update_running, normalized_sum_binding::update_running_torch)
PYNAS_SEES_LAZY_SIGNS(normalized_sum_update_running)

}  // namespace pynas
