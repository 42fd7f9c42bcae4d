// Moments over sample groups of an embedding's gradient, for the rows that the batch
// touches. With indices [B, T], grad_output [B, T, D], sample group s of m = group_size
// consecutive samples and v_u the u-th touched row:
//
//   g[s,u,d]      = sum_{b in s, t : indices[b,t] = v_u} grad_output[b,t,d]   (0 where the group has no v_u)
//   values[k,u,d] = the k-th requested moment (common/moments.h) over s of g[s,u,d]
//
// The binding sorts the look-ups by row, so the kernel reads each touched row's positions as one ascending
// run.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/moments.h"
#include "common/parallel.h"

namespace pynas {

// Strides count elements. "acc" is float64 where dtype is float64, else float32.
struct EmbeddingGradMomentsParams {
  const void* grad_output = nullptr;  // [N, D] of dtype, N = B T look-ups, rows grad_output_stride apart
  // Positions 0 .. N - 1 without those of padding, sorted by row and ascending within a row.
  const int64_t* order = nullptr;
  const int64_t* offsets = nullptr;  // [U + 1]: positions of row u are order[offsets[u] .. offsets[u + 1])
  void* values = nullptr;            // [count_moments(moments), U, D] of acc, contiguous
  int64_t rows = 0;                  // U
  int64_t features = 0;              // D
  int64_t grad_output_stride = 0;    // elements between the rows of grad_output
  int64_t group_positions = 1;       // T m: position p belongs to sample group p / group_positions
  int64_t groups = 0;                // B / m, those without a row included
  uint32_t moments = 0;              // mask of Moment
  DType dtype = DType::kFloat32;
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void embedding_grad_moments(const EmbeddingGradMomentsParams&, const Parallel&))
}
namespace cuda {
void embedding_grad_moments(const EmbeddingGradMomentsParams&, void* stream);  // stream: a cudaStream_t
}

}  // namespace pynas
