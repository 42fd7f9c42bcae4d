// Runs a launch block by block: barriers, warp collectives, shared memory, and the errors a GPU would hang
// on.
#pragma once

#include <algorithm>

#include "cuda_emulation/fibers.h"

namespace emu {

enum BarrierKind : unsigned { kBarrier, kBarrierCount, kBarrierOr, kBarrierAnd };

inline int block_barrier(int predicate, BarrierKind kind, const char* what, const char* file, int line) {
  Fiber& me = *state().current;
  me.predicate = predicate;
  me.mask = kind;
  EMU_TSAN(const unsigned phase = state().barrier_phase & 1; __tsan_release(&state().barrier_token[phase]));
  arrive(Wait::block, what, file, line);
  EMU_TSAN(__tsan_acquire(&state().barrier_token[phase]));
  return me.predicate;
}

// Every lane of `mask` arrives, then `function` reads all their `in` and writes all their `out`, once. Only
// __syncwarp orders memory; shuffles and mma do not.
inline void collective(unsigned mask, const char* what, const void* in, void* out, WarpFunction function,
                       const char* file, int line, bool orders_memory = false) {
  Fiber& me = *state().current;
  me.mask = mask;
  me.in = in;
  me.out = out;
  me.function = function;
  (void)orders_memory;
  EMU_TSAN(if (orders_memory) __tsan_release(&me.warp_token[me.warp_syncs & 1]));
  arrive(Wait::warp, what, file, line);
  EMU_TSAN(if (orders_memory) {
    for (void* token : me.acquire) __tsan_acquire(token);
    ++me.warp_syncs;
  });
}

inline bool same_site(const Fiber& a, const Fiber& b) {
  return a.line == b.line && a.mask == b.mask && a.what == b.what && std::strcmp(a.file, b.file) == 0;
}

// Releases the block barrier when every thread is there; threads elsewhere or gone are an error.
inline void check_block() {
  State& s = state();
  if (s.at_barrier == 0 || s.at_barrier + s.exited != s.threads) return;
  const Fiber* first = nullptr;
  int count = 0;
  for (const Fiber& fiber : s.fibers) {
    if (fiber.wait != Wait::block) continue;
    count += fiber.predicate != 0;
    if (first == nullptr) first = &fiber;
    if (!same_site(*first, fiber))
      return fail("barrier divergence: " + where(*first) + " BUT " + where(fiber));
  }
  for (const Fiber& fiber : s.fibers) {
    if (fiber.wait == Wait::exited)
      return fail("barrier divergence: " + where(*first) + " BUT " + where(fiber));
  }
  ++s.barrier_phase;
  for (Fiber& fiber : s.fibers) {
    if (fiber.mask == kBarrierCount) fiber.predicate = count;
    if (fiber.mask == kBarrierOr) fiber.predicate = count > 0;
    if (fiber.mask == kBarrierAnd) fiber.predicate = count == static_cast<int>(s.at_barrier);
    fiber.wait = Wait::none;
    s.ready.push_back(&fiber);
  }
  s.at_barrier = 0;
}

inline void check_warp(Fiber& fiber) {
  State& s = state();
  const unsigned warp = fiber.id / 32;
  Fiber* base = &s.fibers[warp * 32];
  unsigned live = 0;
  for (unsigned lane = 0; lane < 32 && warp * 32 + lane < s.threads; ++lane) {
    if (base[lane].wait != Wait::exited) live |= 1u << lane;
  }
  const unsigned need =
      fiber.mask & (s.threads >= warp * 32 + 32 ? ~0u : (1u << (s.threads - warp * 32)) - 1);
  if ((fiber.mask >> (fiber.id & 31) & 1) == 0)
    return fail("calling lane is not in its own mask: " + where(fiber));
  if ((need & ~live) != 0)
    return fail("warp divergence: a lane named in the mask has exited: " + where(fiber));
  if ((s.waiting[warp] & need) != need) return;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((need >> lane & 1) != 0 && !same_site(fiber, base[lane])) {
      return fail("warp divergence: " + where(fiber) + " BUT " + where(base[lane]));
    }
  }
  if (fiber.function != nullptr) fiber.function(need, base);
  EMU_TSAN(std::vector<void*> tokens; for (unsigned lane = 0; lane < 32; ++lane) {
    if (need >> lane & 1) tokens.push_back(&base[lane].warp_token[base[lane].warp_syncs & 1]);
  });
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((need >> lane & 1) == 0) continue;
    EMU_TSAN(base[lane].acquire = tokens);
    base[lane].wait = Wait::none;
    s.ready.push_back(&base[lane]);
  }
  s.waiting[warp] &= ~need;
}

// Shared memory is fresh for every block, poisoned with 0xFF (NaN, -1) and ends at a redzone.
inline void new_shared(const void* tag, size_t bytes) {  // in the scheduler
  State& s = state();
  const size_t room = std::max<size_t>(128, (bytes + 127) / 128 * 128);
  auto* data = static_cast<unsigned char*>(std::aligned_alloc(128, room));
  std::memset(data, 0xFF, bytes);
  EMU_ASAN(__asan_poison_memory_region(data + bytes, room - bytes));
  s.shared.push_back({tag, data, bytes, room});
  size_t fixed = 0;
  for (size_t i = 1; i < s.shared.size(); ++i) fixed += s.shared[i].bytes;
  if (fixed > 48 << 10 || fixed + s.shared[0].bytes > config().shared_bytes) {
    fail("too much shared memory: " + std::to_string(fixed) + " static + " +
         std::to_string(s.shared[0].bytes) + " dynamic bytes");
  }
}

inline void drop_shared() {
  State& s = state();
  for (const SharedArray& array : s.shared) {
    EMU_ASAN(__asan_unpoison_memory_region(array.data, array.room));
    if (config().blocks_ordered) {
      std::free(array.data);
    } else {
      s.retired.push_back(array.data);
    }
  }
  s.shared.clear();
}

inline void* shared(const void* tag, size_t bytes) {  // in a fiber; the scheduler allocates
  State& s = state();
  for (const SharedArray& array : s.shared) {
    if (array.tag == tag) return array.data;
  }
  s.current->in = tag;
  s.current->mask = static_cast<unsigned>(bytes);
  s.current->wait = Wait::allocation;
  to_scheduler();
  return s.shared.back().data;
}

inline void check_deadlock() {
  State& s = state();
  if (!s.error.empty() || s.exited == s.threads) return;
  for (const Fiber& fiber : s.fibers) {
    if (fiber.wait == Wait::exited) continue;
    for (const Fiber& other : s.fibers) {
      if (other.wait != Wait::exited && !same_site(fiber, other)) {
        return fail("deadlock: " + where(fiber) + " BUT " + where(other));
      }
    }
    return fail("deadlock: " + where(fiber));
  }
}

inline Fiber& next_fiber() {
  State& s = state();
  const Order order = config().order;
  if (order == Order::random) std::swap(s.ready.back(), s.ready[s.random() % s.ready.size()]);
  Fiber* fiber = order == Order::forward ? s.ready.front() : s.ready.back();
  if (order == Order::forward) {
    s.ready.pop_front();
  } else {
    s.ready.pop_back();
  }
  return *fiber;
}

inline void run_block(size_t dynamic_bytes) {
  State& s = state();
  s.at_barrier = s.exited = 0;
  s.ready.clear();
  s.waiting.assign((s.threads + 31) / 32, 0);
  ++s.blocks;
  new_shared(nullptr, dynamic_bytes);
  for (Fiber& fiber : s.fibers) {
    fiber.wait = Wait::none;
    fiber.copies.clear();
    fiber.copy_group = 0;
    fiber.what = "start";
    fiber.file = "";
    fiber.line = 0;
    s.ready.push_back(&fiber);
  }
  while (!s.ready.empty() && s.error.empty()) {
    Fiber& fiber = next_fiber();
    to_fiber(fiber);
    while (fiber.wait == Wait::allocation && s.error.empty()) {
      new_shared(fiber.in, fiber.mask);
      fiber.wait = Wait::none;
      if (s.error.empty()) to_fiber(fiber);
    }
    if (!s.error.empty()) break;
    if (fiber.wait == Wait::warp) {
      s.waiting[fiber.id / 32] |= 1u << (fiber.id & 31);
      check_warp(fiber);
      continue;
    }
    if (fiber.wait == Wait::block) ++s.at_barrier;
    if (fiber.wait == Wait::exited) {
      ++s.exited;
      for (unsigned id = fiber.id & ~31u; id < std::min((fiber.id | 31u) + 1, s.threads); ++id) {
        if (s.fibers[id].wait == Wait::warp && s.error.empty()) check_warp(s.fibers[id]);
      }
    }
    check_block();
  }
  drop_shared();
  check_deadlock();
}

struct Quiet {  // the scheduler itself never takes part in a race
  Quiet() { EMU_TSAN(AnnotateIgnoreReadsBegin("", 0); AnnotateIgnoreWritesBegin("", 0)); }
  ~Quiet() { EMU_TSAN(AnnotateIgnoreWritesEnd("", 0); AnnotateIgnoreReadsEnd("", 0)); }
};

// The fibers of one block. They are kept for later blocks and launches of the same size: ThreadSanitizer
// takes milliseconds to make one. Unordered, neighbouring blocks get different fibers, so that a race between
// them is seen.
inline std::vector<Fiber>& idle_fibers(unsigned threads, size_t block) {
  return state().pools[{threads, config().blocks_ordered ? 0 : static_cast<int>(block % 2)}];
}

inline void take_fibers(std::vector<Fiber>& idle, dim3 block) {
  State& s = state();
  s.fibers.swap(idle);
  if (s.fibers.empty()) {
    s.fibers.resize(s.threads);
    for (unsigned id = 0; id < s.threads; ++id) {
      create_fiber(s.fibers[id]);
      s.fibers[id].id = id;
    }
  }
  for (Fiber& fiber : s.fibers) {
    fiber.thread = make_uint3(fiber.id % block.x, fiber.id / block.x % block.y, fiber.id / block.x / block.y);
  }
}

inline void launch_raw(dim3 grid, dim3 block, size_t dynamic_bytes, void (*call)(void*), void* context) {
  const Quiet quiet;
  State& s = state();
  s.threads = block.x * block.y * block.z;
  const bool grid_ok = grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.y <= 65535 && grid.z <= 65535;
  if (s.threads == 0 || s.threads > 1024 || block.z > 64 || !grid_ok)
    throw error("invalid launch configuration");
  s.call = call;
  s.context = context;
  s.error.clear();
  s.random.seed(config().seed);
  blockDim = block;
  gridDim = grid;
  EMU_TSAN(s.main_tsan = __tsan_get_current_fiber(); __tsan_release(&s.launch_token));

  const size_t blocks = size_t{grid.x} * grid.y * grid.z;
  std::vector<size_t> order(blocks);
  for (size_t i = 0; i < blocks; ++i) order[i] = config().order == Order::reverse ? blocks - 1 - i : i;
  if (config().order == Order::random) std::shuffle(order.begin(), order.end(), s.random);
  for (const size_t i : order) {
    blockIdx = make_uint3(i % grid.x, i / grid.x % grid.y, static_cast<unsigned>(i / grid.x / grid.y));
    std::vector<Fiber>& idle = idle_fibers(s.threads, i);
    take_fibers(idle, block);
    run_block(dynamic_bytes);
    if (!s.error.empty()) destroy_fibers();  // some stand in the middle of the kernel
    s.fibers.swap(idle);
    if (!s.error.empty()) break;
  }
  EMU_TSAN(__tsan_acquire(&s.launch_end_token));
  for (void* memory : s.retired) std::free(memory);
  s.retired.clear();
  if (!s.error.empty()) throw error(s.error);
}

}  // namespace emu
