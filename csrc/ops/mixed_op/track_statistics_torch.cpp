// For every batch norm whose candidate was computed:
//
//   running <- running + f (batch - running)
//
// with the unbiased variance of the batch; f = momentum, or 1 / batches seen where momentum is None.
#include <ATen/ops/where.h>

#include <limits>
#include <vector>

#include "bindings/tensor.h"
#include "bindings/update.h"

namespace pynas::track_statistics_binding {
namespace {

constexpr const char* kOp = "mixed_op";

struct Tracking {
  at::Tensor statistics;  // [norms, 3, C]
  double unbias = 1;      // M / (M - 1)
  std::optional<double> momentum;
};

template <typename T>
void lerp_row(const at::Tensor& running, const T* batch, T scale, T factor) {
  T* values = running.mutable_data_ptr<T>();
  for (int64_t c = 0; c < running.numel(); ++c) values[c] += factor * (scale * batch[c] - values[c]);
}

// On the host rows are short and many: a loop costs less than dispatching operators.
void track_host(at::TensorList running, at::TensorList counts, const Tracking& tracking, int64_t norm) {
  double factor = tracking.momentum.value_or(0.0);
  if (!counts.empty()) {
    int64_t& count = *counts[norm].mutable_data_ptr<int64_t>();
    TORCH_CHECK_VALUE(count >= 0 && count < std::numeric_limits<int64_t>::max(), kOp,
                      ": num_batches_tracked[", norm, "]: expected a number of batches, got ", count);
    ++count;
    check::bump_version(counts[norm]);
    if (!tracking.momentum.has_value()) factor = 1.0 / static_cast<double>(count);
  }
  const at::Tensor rows = tracking.statistics[norm];
  for (int moment = 0; moment < 2; ++moment) {
    const at::Tensor& target = running[2 * norm + moment];
    check::bump_version(target);
    const double scale = moment == 0 ? 1.0 : tracking.unbias;
    const int64_t row = 2 * moment;
    if (!target.is_contiguous() || target.scalar_type() != rows.scalar_type()) {
      target.lerp_(rows[row].mul(scale).to(target.scalar_type()), factor);
    } else if (rows.scalar_type() == at::kDouble) {
      lerp_row<double>(target, rows.const_data_ptr<double>() + row * target.numel(), scale, factor);
    } else {
      lerp_row<float>(target, rows.const_data_ptr<float>() + row * target.numel(), static_cast<float>(scale),
                      static_cast<float>(factor));
    }
  }
}

// On other devices only the device knows which weights are zero: for those the factor is zero.
void track_device(at::TensorList running, at::TensorList counts, const Tracking& tracking, int64_t norm,
                  const at::Tensor& active) {
  at::Tensor factor;
  if (!counts.empty()) counts[norm].add_(active);
  if (tracking.momentum.has_value()) {
    factor = active.to(tracking.statistics.scalar_type()).mul(*tracking.momentum);
  } else {
    factor = active.to(tracking.statistics.scalar_type()).div(counts[norm].clamp_min(1));
  }
  const at::Tensor rows = tracking.statistics[norm];
  for (int moment = 0; moment < 2; ++moment) {
    const at::Tensor& target = running[2 * norm + moment];
    // A factor of zero is not enough: rows of candidates that were not computed may hold anything.
    const at::Tensor batch =
        rows[2 * moment].mul(moment == 0 ? 1.0 : tracking.unbias).to(target.scalar_type());
    target.lerp_(at::where(active, batch, target), factor.to(target.scalar_type()));
  }
}

void track_statistics_torch(at::TensorList running, at::TensorList counts, const at::Tensor& statistics,
                            const at::Tensor& weights, at::IntArrayRef owners, std::optional<double> momentum,
                            int64_t values) {
  const size_t norms = owners.size();
  TORCH_CHECK_VALUE(running.size() == 2 * norms, kOp, ": running: expected mean and variance of ", norms,
                    " batch norms, ", 2 * norms, " tensors, got ", running.size());
  TORCH_CHECK_VALUE(counts.empty() || counts.size() == norms, kOp, ": num_batches_tracked: expected none or ",
                    norms, " tensors, got ", counts.size());
  TORCH_CHECK_VALUE(momentum.has_value() || !counts.empty(), kOp,
                    ": num_batches_tracked: expected a count for each batch norm where momentum is None");
  TORCH_CHECK_VALUE(
      statistics.dim() == 3 && statistics.size(0) == static_cast<int64_t>(norms) && statistics.size(1) == 3 &&
          (statistics.scalar_type() == at::kFloat || statistics.scalar_type() == at::kDouble),
      kOp, ": statistics: expected float32 or float64 [", norms,
      ", 3, channels], rows of each batch norm, got ", statistics.scalar_type(), " ", statistics.sizes());
  TORCH_CHECK_VALUE(weights.dim() == 1 && check::is_floating(weights), kOp,
                    ": weights: expected a floating vector, got ", weights.scalar_type(), " ",
                    weights.sizes());
  for (const int64_t owner : owners)
    TORCH_CHECK_VALUE(owner >= 0 && owner < weights.size(0), kOp, ": owners: expected positions among the ",
                      weights.size(0), " weights, got ", owner);
  TORCH_CHECK_VALUE(values >= 0, kOp, ": values: expected the number of values per channel, got ", values);
  std::vector<check::Target> targets;
  targets.reserve(running.size() + counts.size());
  for (size_t i = 0; i < running.size(); ++i) {
    TORCH_CHECK_VALUE(running[i].dim() == 1 && running[i].size(0) == statistics.size(2), kOp, ": running[", i,
                      "]: expected shape [", statistics.size(2), "], got ", running[i].sizes());
    TORCH_CHECK_TYPE(check::is_floating(running[i]), kOp, ": running[", i,
                     "]: expected a floating tensor, got ", running[i].scalar_type());
    targets.push_back({"running", static_cast<int64_t>(i), &running[i]});
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    TORCH_CHECK_VALUE(counts[i].numel() == 1 && counts[i].scalar_type() == at::kLong, kOp,
                      ": num_batches_tracked[", i, "]: expected one int64, got ", counts[i].scalar_type(),
                      " ", counts[i].sizes());
    targets.push_back({"num_batches_tracked", static_cast<int64_t>(i), &counts[i]});
  }
  check::updated(kOp, targets, {{"statistics", -1, &statistics}, {"weights", -1, &weights}});
  if (values <= 1) return;
  const Tracking tracking{statistics.contiguous(),
                          static_cast<double>(values) / static_cast<double>(values - 1), momentum};
  if (statistics.is_cpu()) {
    const at::Tensor host = weights.to(statistics.scalar_type()).to(at::kDouble).contiguous();
    for (size_t norm = 0; norm < norms; ++norm) {
      if (host.const_data_ptr<double>()[owners[norm]] != 0.0) {
        track_host(running, counts, tracking, static_cast<int64_t>(norm));
      }
    }
    return;
  }
  const at::Tensor active = weights.to(statistics.device()).ne(0);
  for (size_t norm = 0; norm < norms; ++norm) {
    track_device(running, counts, tracking, static_cast<int64_t>(norm), active[owners[norm]]);
  }
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.mixed_op");
  m.def(
      "track_statistics(Tensor(a!)[] running, Tensor(b!)[] counts, Tensor statistics, Tensor weights, int[] "
      "owners, float? momentum, SymInt values) -> ()",
      {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(track_statistics, track_statistics_torch, 3)
PYNAS_SEES_LAZY_SIGNS(track_statistics)

}  // namespace pynas::track_statistics_binding
