// Binary codes of activations x [B, F] and how far they agree (Mellor, Turner, Storkey, Crowley 2021):
//
//   code_b = the bits X_bf = [x_bf > 0], f = 0 .. F - 1 in memory order, 64 to a word, the first in bit 0
//   K_ij  += times (F - popcount(code_i xor code_j))
//
// A NaN gives 0. F - popcount is the number of units that agree, so that `times` = 1 adds
// X X^T + (1 - X) (1 - X)^T to K [B, B].
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct ActivationCodesParams {
  const void* x = nullptr;    // [batch, features] of dtype, rows contiguous and one behind the other
  uint64_t* codes = nullptr;  // [batch, stride]; words [words, stride) of a row are set to 0
  int64_t batch = 0, features = 0;
  int64_t stride = 0;  // >= ceil(features / 64)
  DType dtype = DType::kFloat32;
};

struct CodeAgreementParams {
  const uint64_t* codes = nullptr;  // [batch, stride]; bits beyond the features are equal in all rows
  int64_t* agreement = nullptr;     // [batch, batch], added to
  int64_t batch = 0, words = 0, stride = 0;
  int64_t features = 0;
  int64_t times = 1;
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void activation_codes(const ActivationCodesParams&, const Parallel&))
PYNAS_DECLARE_PER_ISA(void code_agreement(const CodeAgreementParams&, const Parallel&))
}  // namespace cpu
namespace cuda {
void activation_codes(const ActivationCodesParams&, void* stream);  // stream: a cudaStream_t
void code_agreement(const CodeAgreementParams&, void* stream);
}  // namespace cuda

}  // namespace pynas
