// The candidates of a mixed edge, and what each consists of: the one table of it in C++. pynas/ops/candidates.py
// is the one in Python, and tests/ops/test_candidates_agree.py compares them. No torch here.
#pragma once

#include <cstdint>

namespace pynas {

// The codes of pynas/ops/candidates.py; those of DARTS come first, in the order of its PRIMITIVES. A mixture
// may hold the same candidate more than once.
enum class Candidate : int64_t {
  kNone,
  kMaxPool3x3,
  kAvgPool3x3,
  kSkipConnect,
  kSepConv3x3,
  kSepConv5x5,
  kDilConv3x3,
  kDilConv5x5,
  kNorConv1x1,
  kNorConv3x3,
};
constexpr const char* kCandidateNames[] = {"none",         "max_pool_3x3", "avg_pool_3x3", "skip_connect",
                                           "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
                                           "nor_conv_1x1", "nor_conv_3x3"};
constexpr int64_t kCandidates = sizeof(kCandidateNames) / sizeof(kCandidateNames[0]);
constexpr int64_t kDartsCandidates = 8;
static_assert(kCandidates == static_cast<int64_t>(Candidate::kNorConv3x3) + 1);
static_assert(kDartsCandidates == static_cast<int64_t>(Candidate::kDilConv5x5) + 1);

// In kDarts every pool is followed by a batch norm, which is never affine; elsewhere pools have none.
enum class Family : int64_t { kDarts, kNasBench201, kTransNas };
constexpr int64_t kFamilies = 3;

// What a stage computes before its batch norm. Convolutions read max(0, input) and have no bias.
enum class StageKind : int32_t {
  kMaxPool,      // 3x3, padding 1
  kAvgPool,      // 3x3, padding 1, the mean over pixels of the image
  kSeparable,    // a depthwise convolution, then a pointwise one
  kConvolution,  // from all channels to all channels
  kReduction,    // 1x1 convolutions of stride 2 side by side: C / 2 outputs from the pixels at even rows and
                 // columns, C - C / 2 from those at odd ones
};
enum class StageNorm : int32_t { kNone, kPlain, kAffine };  // kAffine: affine in an affine edge

struct CandidateStage {
  StageKind kind = StageKind::kConvolution;
  int kernel = 1, dilation = 1;
  StageNorm norm = StageNorm::kAffine;

  constexpr bool is_pool() const { return kind == StageKind::kMaxPool || kind == StageKind::kAvgPool; }
  // Weights of convolutions; gamma and beta, where there are any, come behind them.
  constexpr int64_t weights() const { return is_pool() ? 0 : kind == StageKind::kConvolution ? 1 : 2; }
};

// One after the other, the first with the edge's stride, the second with stride 1. A candidate without a stage
// is the identity, or zero for Candidate::kNone.
struct CandidateStages {
  int64_t count = 0;
  CandidateStage stages[2];

  constexpr const CandidateStage* begin() const { return stages; }
  constexpr const CandidateStage* end() const { return stages + count; }
  constexpr bool starts_with(StageKind kind) const { return count > 0 && stages[0].kind == kind; }
  constexpr bool is_pool() const { return count > 0 && stages[0].is_pool(); }
  constexpr int64_t norms() const {
    int64_t norms = 0;
    for (const CandidateStage& stage : *this) norms += stage.norm != StageNorm::kNone;
    return norms;
  }
};

constexpr const char* name_of(Candidate candidate) {
  return kCandidateNames[static_cast<int64_t>(candidate)];
}

constexpr bool belongs(Candidate candidate, Family family) {
  switch (candidate) {
    case Candidate::kNone:
    case Candidate::kSkipConnect:
      return true;
    case Candidate::kAvgPool3x3:
      return family != Family::kTransNas;
    case Candidate::kNorConv1x1:
    case Candidate::kNorConv3x3:
      return family != Family::kDarts;
    default:
      return family == Family::kDarts;
  }
}

// Of a candidate that belongs to the family.
constexpr CandidateStages stages_of(Candidate candidate, Family family, int64_t stride) {
  const StageNorm of_pools = family == Family::kDarts ? StageNorm::kPlain : StageNorm::kNone;
  constexpr StageNorm affine = StageNorm::kAffine;
  constexpr CandidateStages none;
  switch (candidate) {
    case Candidate::kNone:
      return none;
    case Candidate::kMaxPool3x3:
      return {1, {{StageKind::kMaxPool, 3, 1, of_pools}}};
    case Candidate::kAvgPool3x3:
      return {1, {{StageKind::kAvgPool, 3, 1, of_pools}}};
    case Candidate::kSkipConnect:
      if (stride == 1) return none;
      return {1, {{StageKind::kReduction, 1, 1, affine}}};
    case Candidate::kSepConv3x3:
      return {2, {{StageKind::kSeparable, 3, 1, affine}, {StageKind::kSeparable, 3, 1, affine}}};
    case Candidate::kSepConv5x5:
      return {2, {{StageKind::kSeparable, 5, 1, affine}, {StageKind::kSeparable, 5, 1, affine}}};
    case Candidate::kDilConv3x3:
      return {1, {{StageKind::kSeparable, 3, 2, affine}}};
    case Candidate::kDilConv5x5:
      return {1, {{StageKind::kSeparable, 5, 2, affine}}};
    case Candidate::kNorConv1x1:
      return {1, {{StageKind::kConvolution, 1, 1, affine}}};
    case Candidate::kNorConv3x3:
      return {1, {{StageKind::kConvolution, 3, 1, affine}}};
  }
  return none;
}

}  // namespace pynas
