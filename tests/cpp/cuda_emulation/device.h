// What a .cu file finds in place of the CUDA runtime when g++ compiles it with -DPYNAS_CUDA_EMULATION.
//
// Kernels ask for shared memory by SHARED and DYNAMIC_SHARED, start by launch() and keep inline PTX behind
// the wrappers of common/cuda_ptx.h. Not emulated: wgmma, TMA, clusters, cooperative groups, __activemask,
// spin-waits.
#pragma once

#include <cmath>

#include "cuda_emulation/scheduler.h"

#include <cuda_bf16.h>  // their host parts: conversions and bit casts
#include <cuda_fp16.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

// A fresh piece for every block instead of a static: poisoning and race detection then work block by block.
#define SHARED(T, name, ...)             \
  typedef T name##_shared_t __VA_ARGS__; \
  static char name##_tag;                \
  name##_shared_t& name = *static_cast<name##_shared_t*>(emu::shared(&name##_tag, sizeof(name##_shared_t)))
#define DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(emu::shared(nullptr, 0))

constexpr int warpSize = 32;
using std::max;
using std::min;

namespace emu {

template <class T>
struct ShuffleIn {
  T value;
  int source;
};

template <class T>
T shuffle(unsigned mask, T value, int source, const char* what, const char* file, int line) {
  const ShuffleIn<T> in{value, source};
  T out{};
  collective(
      mask, what, &in, &out,
      [](unsigned lanes, Fiber* warp) {
        for (int i = 0; i < 32; ++i) {
          if ((lanes >> i & 1) == 0) continue;
          const int from = static_cast<const ShuffleIn<T>*>(warp[i].in)->source;
          if ((lanes >> from & 1) == 0) {
            return fail("shuffle reads lane " + std::to_string(from) +
                        ", which does not take part: " + where(warp[i]));
          }
          *static_cast<T*>(warp[i].out) = static_cast<const ShuffleIn<T>*>(warp[from].in)->value;
        }
      },
      file, line);
  return out;
}

inline int lane() { return static_cast<int>(state().current->id & 31); }

inline unsigned ballot(unsigned mask, int predicate, const char* what, const char* file, int line) {
  unsigned out = 0;
  collective(
      mask, what, &predicate, &out,
      [](unsigned lanes, Fiber* warp) {
        unsigned bits = 0;
        for (int i = 0; i < 32; ++i) {
          if ((lanes >> i & 1) != 0 && *static_cast<const int*>(warp[i].in) != 0) bits |= 1u << i;
        }
        for (int i = 0; i < 32; ++i) {
          if ((lanes >> i & 1) != 0) *static_cast<unsigned*>(warp[i].out) = bits;
        }
      },
      file, line);
  return out;
}

template <class T, class F>
T atomic_update(T* address, F function) {
  T old, desired;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do {
    desired = function(old);
  } while (!__atomic_compare_exchange(address, &old, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

}  // namespace emu

// The call site is part of a barrier's identity: two barriers on one line would look the same.
#define EMU_SITE const char *emu_file = __builtin_FILE(), int emu_line = __builtin_LINE()

inline void __syncthreads(EMU_SITE) {
  emu::block_barrier(0, emu::kBarrier, "__syncthreads", emu_file, emu_line);
}
inline int __syncthreads_count(int predicate, EMU_SITE) {
  return emu::block_barrier(predicate, emu::kBarrierCount, "__syncthreads_count", emu_file, emu_line);
}
inline int __syncthreads_or(int predicate, EMU_SITE) {
  return emu::block_barrier(predicate, emu::kBarrierOr, "__syncthreads_or", emu_file, emu_line);
}
inline int __syncthreads_and(int predicate, EMU_SITE) {
  return emu::block_barrier(predicate, emu::kBarrierAnd, "__syncthreads_and", emu_file, emu_line);
}
inline void __syncwarp(unsigned mask = ~0u, EMU_SITE) {
  emu::collective(mask, "__syncwarp", nullptr, nullptr, nullptr, emu_file, emu_line, true);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_SITE) {
  return emu::ballot(mask, predicate, "__ballot_sync", emu_file, emu_line);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_SITE) {
  const int from = (emu::lane() & ~(width - 1)) | (source & (width - 1));
  return emu::shuffle(mask, value, from, "__shfl_sync", emu_file, emu_line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMU_SITE) {
  const int to = emu::lane() ^ bits;
  const int from = to > (emu::lane() | (width - 1)) ? emu::lane() : to;
  return emu::shuffle(mask, value, from, "__shfl_xor_sync", emu_file, emu_line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_SITE) {
  const int to = emu::lane() + static_cast<int>(delta);
  const int from = (emu::lane() & (width - 1)) + static_cast<int>(delta) >= width ? emu::lane() : to;
  return emu::shuffle(mask, value, from, "__shfl_down_sync", emu_file, emu_line);
}
template <class T, class U>
T atomicAdd(T* address, U value) {
  return emu::atomic_update(address, [&](T old) { return static_cast<T>(old + static_cast<T>(value)); });
}
inline void __threadfence() {
  EMU_TSAN(__tsan_acquire(&emu::state().fence_token); __tsan_release(&emu::state().fence_token));
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t{a} * b) >> 32); }
template <class T>
T __ldg(const T* address) {
  return *address;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

namespace pynas::cuda {

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t,
            A&&... arguments) {
  auto body = [&] { kernel(static_cast<P>(arguments)...); };
  emu::launch_raw(
      grid, block, dynamic_bytes, [](void* context) { (*static_cast<decltype(body)*>(context))(); }, &body);
}

}  // namespace pynas::cuda
