// Host twins of the instructions in common/cuda_ptx.h: same names, same arguments, same fragment layouts.
//
// They are as unforgiving as the model allows: cp.async poisons its destination at issue and delivers at the
// wait, so that an early reader sees NaN; rounding to tf32 keeps NaN, so that poison survives it.
#pragma once

#include "cuda_emulation/device.h"

namespace emu {

struct MmaIn {
  const uint32_t *a, *b;
  const float* c;
};

struct Tf32 {  // one value a register, K = 8
  static constexpr int kPerRegister = 1;
  static float unpack(uint32_t word, int) { return __uint_as_float(word & 0xffffe000u); }
};
struct Bf16 {  // two values a register, K = 16
  static constexpr int kPerRegister = 2;
  static float unpack(uint32_t word, int i) {
    return __uint_as_float((i != 0 ? word >> 16 : word & 0xffffu) << 16);
  }
};
struct Fp16 {
  static constexpr int kPerRegister = 2;
  static float unpack(uint32_t word, int i) {
    __half_raw raw;
    raw.x = static_cast<unsigned short>(i != 0 ? word >> 16 : word & 0xffffu);
    return __half2float(__half(raw));
  }
};

// D = A B + C, A [16][K], B [K][8]. Lane 4g + q holds rows g, g + 8 of A and D, column g of B.
template <class Format>
void mma_m16n8(unsigned mask, Fiber* warp) {
  constexpr int kPer = Format::kPerRegister, kK = 8 * kPer;
  if (mask != ~0u) return fail("mma needs all 32 lanes: " + where(warp[0]));
  float a[16][kK], b[kK][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaIn& in = *static_cast<const MmaIn*>(warp[lane].in);
    const int g = lane / 4, q = lane % 4;
    for (int r = 0; r < 4; ++r) {
      for (int i = 0; i < kPer; ++i) {
        a[g + (r & 1) * 8][kPer * q + i + (r >> 1) * 4 * kPer] = Format::unpack(in.a[r], i);
      }
    }
    for (int r = 0; r < 2; ++r) {
      for (int i = 0; i < kPer; ++i) b[kPer * q + i + r * 4 * kPer][g] = Format::unpack(in.b[r], i);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const MmaIn& in = *static_cast<const MmaIn*>(warp[lane].in);
    float* d = static_cast<float*>(warp[lane].out);
    for (int r = 0; r < 4; ++r) {
      const int row = lane / 4 + (r >> 1) * 8, column = 2 * (lane % 4) + (r & 1);
      float sum = in.c[r];
      for (int k = 0; k < kK; ++k) sum += a[row][k] * b[k][column];
      d[r] = sum;
    }
  }
}

template <class Format>
void mma(float* c, const uint32_t* a, const uint32_t* b, const char* what, const char* file, int line) {
  const MmaIn in{a, b, c};
  float d[4];
  collective(~0u, what, &in, d, mma_m16n8<Format>, file, line);
  std::memcpy(c, d, sizeof d);
}

struct MatrixRow {
  uint16_t values[8];
};

// Four 8x8 matrices; lane l holds row l % 8 of matrix l / 8. Transposed: register j of lane 4g + q gets
// M_j[2q][g] and M_j[2q + 1][g].
inline void exchange_transposed(unsigned mask, Fiber* warp) {
  if (mask != ~0u) return fail("ldmatrix needs all 32 lanes: " + where(warp[0]));
  for (int lane = 0; lane < 32; ++lane) {
    for (int j = 0; j < 4; ++j) {
      const int row = 8 * j + 2 * (lane % 4);
      const uint32_t low = static_cast<const MatrixRow*>(warp[row].in)->values[lane / 4];
      const uint32_t high = static_cast<const MatrixRow*>(warp[row + 1].in)->values[lane / 4];
      static_cast<uint32_t*>(warp[lane].out)[j] = low | high << 16;
    }
  }
}

}  // namespace emu

namespace pynas::cuda {

inline uint32_t to_tf32(float value) {  // round to nearest, ties away from zero
  if (value != value) return 0x7fffe000u;
  return (__float_as_uint(value) + 0x1000u) & 0xffffe000u;
}

inline void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_SITE) {
  emu::mma<emu::Tf32>(c, a, b, "mma_m16n8k8_tf32", emu_file, emu_line);
}
inline void mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_SITE) {
  emu::mma<emu::Bf16>(c, a, b, "mma_m16n8k16_bf16", emu_file, emu_line);
}
inline void mma_m16n8k16_fp16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_SITE) {
  emu::mma<emu::Fp16>(c, a, b, "mma_m16n8k16_fp16", emu_file, emu_line);
}

inline void ldmatrix_x4_transposed(uint32_t (&registers)[4], const void* row, EMU_SITE) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) emu::fail_here("ldmatrix: misaligned row");
  emu::MatrixRow mine;  // read by the lane itself, where ThreadSanitizer sees it
  std::memcpy(&mine, row, sizeof mine);
  emu::collective(~0u, "ldmatrix_x4_transposed", &mine, registers, emu::exchange_transposed, emu_file,
                  emu_line);
}

inline void cp_async_16(void* target, const void* source, int valid) {
  if (reinterpret_cast<uintptr_t>(target) % 16 != 0 || reinterpret_cast<uintptr_t>(source) % 16 != 0) {
    emu::fail_here("cp_async_16: misaligned address");
  }
  std::memset(target, 0xFF, 16);
  emu::Fiber& me = *emu::state().current;
  me.copies.push_back({target, source, 16, valid, me.copy_group});
}
inline void cp_async_commit() { ++emu::state().current->copy_group; }

template <int kInFlight>
void cp_async_wait() {
  emu::Fiber& me = *emu::state().current;
  size_t done = 0;
  for (; done < me.copies.size() && me.copies[done].group < me.copy_group - kInFlight; ++done) {
    const emu::PendingCopy& copy = me.copies[done];
    std::memset(copy.target, 0, static_cast<size_t>(copy.bytes));
    std::memcpy(copy.target, copy.source, static_cast<size_t>(copy.valid));
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace pynas::cuda
