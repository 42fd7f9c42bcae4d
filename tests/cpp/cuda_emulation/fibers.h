// One fiber per CUDA thread: stacks, context switches and what the sanitizers must be told about them.
//
// A fiber runs until it reaches a barrier, a warp collective or its end; then the scheduler (scheduler.h)
// picks the next one. AddressSanitizer sees the stack switches. ThreadSanitizer takes each fiber for a thread
// of its own, and only barriers, __syncwarp and atomics order memory between them: so it finds a missing
// barrier in any schedule.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <driver_types.h>      // cudaStream_t: types only, no library
#include <vector_functions.h>  // dim3, float4, make_float4

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EMU_ASAN(...) __VA_ARGS__
#else
#define EMU_ASAN(...)
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#define EMU_TSAN(...) __VA_ARGS__
#else
#define EMU_TSAN(...)
#endif

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace emu {

struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Order { forward, reverse, random };  // in which runnable threads and blocks are taken

struct Config {
  Order order = Order::forward;
  unsigned seed = 1;
  size_t stack_bytes = 256 << 10;
  size_t shared_bytes = 227 << 10;
  bool blocks_ordered = true;  // false: ThreadSanitizer also reports races between blocks of one launch
};
inline Config& config() {
  static Config value;
  return value;
}

enum class Wait : uint8_t { none, block, warp, exited, allocation };
struct Fiber;
using WarpFunction = void (*)(unsigned mask,
                              Fiber* warp);  // runs once, when every lane of the mask has arrived

struct PendingCopy {  // cp.async in flight
  void* target;
  const void* source;
  int bytes, valid, group;
};

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  uint3 thread{};
  unsigned id = 0;
  Wait wait = Wait::none;
  // Where it waits, and the operands of the barrier or collective it waits in.
  const char *what = "", *file = "";
  int line = 0;
  unsigned mask = 0;
  int predicate = 0;
  const void* in = nullptr;
  void* out = nullptr;
  WarpFunction function = nullptr;
  std::vector<PendingCopy> copies;
  int copy_group = 0;
  // Sanitizer state: ASan's fake stack; TSan's fiber, its two alternating __syncwarp tokens and those to
  // acquire.
  void* fake_stack = nullptr;
  void* tsan = nullptr;
  int warp_syncs = 0;
  char warp_token[2];
  std::vector<void*> acquire;
};

struct SharedArray {
  const void* tag;  // address that names the SHARED declaration; null for dynamic shared memory
  unsigned char* data;
  size_t bytes, room;
};

struct State {
  std::vector<Fiber> fibers;                                     // of the running block
  std::map<std::pair<unsigned, int>, std::vector<Fiber>> pools;  // idle, by block size
  std::deque<Fiber*> ready;
  std::vector<unsigned> waiting;  // per warp: lanes that wait in a collective
  Fiber* current = nullptr;
  std::vector<SharedArray> shared;
  std::vector<void*>
      retired;  // shared memory kept until the launch ends, so that blocks cannot share addresses
  std::string error;
  std::mt19937 random;
  unsigned threads = 0, at_barrier = 0, exited = 0;
  void (*call)(void*) = nullptr;
  void* context = nullptr;
  void* main_stack_pointer = nullptr;
  void* main_fake_stack = nullptr;
  const void* main_bottom = nullptr;
  size_t main_bytes = 0;
  void* main_tsan = nullptr;
  // TSan tokens: launch start, block barrier and block end (both alternate by parity), launch end.
  unsigned barrier_phase = 0, blocks = 0;
  char launch_token, barrier_token[2], block_end_token[2], launch_end_token, fence_token;
};
inline State& state() {
  static State* value = new State;
  return *value;
}

#if defined(__x86_64__)
__attribute__((naked, noinline)) inline void swap_stacks(void** /*save*/, void* /*to*/) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n movq %rsp,(%rdi)\n"
      "movq %rsi,%rsp\n popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
#else
#error "CUDA emulation switches stacks in x86-64 assembly; add a ucontext fallback for this architecture"
#endif

inline void to_scheduler() {  // called in a fiber
  State& s = state();
  Fiber& me = *s.current;
  (void)me;
  EMU_ASAN(__sanitizer_start_switch_fiber(&me.fake_stack, s.main_bottom, s.main_bytes));
  EMU_TSAN(__tsan_switch_to_fiber(s.main_tsan, __tsan_switch_to_fiber_no_sync));
  swap_stacks(&me.stack_pointer, s.main_stack_pointer);
  EMU_ASAN(__sanitizer_finish_switch_fiber(me.fake_stack, &s.main_bottom, &s.main_bytes));
}

inline void to_fiber(Fiber& fiber) {  // called in the scheduler
  State& s = state();
  s.current = &fiber;
  threadIdx = fiber.thread;
  EMU_ASAN(__sanitizer_start_switch_fiber(&s.main_fake_stack, fiber.stack, config().stack_bytes));
  EMU_TSAN(__tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync));
  swap_stacks(&s.main_stack_pointer, fiber.stack_pointer);
  EMU_ASAN(__sanitizer_finish_switch_fiber(s.main_fake_stack, nullptr, nullptr));
}

inline void fiber_main() {
  EMU_ASAN(__sanitizer_finish_switch_fiber(nullptr, &state().main_bottom, &state().main_bytes));
  for (;;) {  // one turn per block; stacks are reused
    // Ordered after the block before this one (other parity), not after threads of its own block.
    EMU_TSAN(__tsan_acquire(&state().launch_token);
             if (config().blocks_ordered) __tsan_acquire(&state().block_end_token[(state().blocks + 1) & 1]));
    state().call(state().context);
    state().current->wait = Wait::exited;
    EMU_TSAN(__tsan_release(&state().block_end_token[state().blocks & 1]);
             __tsan_release(&state().launch_end_token));
    to_scheduler();
  }
}

inline void create_fiber(Fiber& fiber) {
  constexpr size_t kGuard = 4096;
  const size_t bytes = config().stack_bytes;
  void* memory = mmap(nullptr, bytes + kGuard, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw error("mmap of a fiber stack failed");
  mprotect(memory, kGuard, PROT_NONE);
  fiber.stack = static_cast<char*>(memory) + kGuard;
  void** top = reinterpret_cast<void**>(fiber.stack + bytes) - 2;
  *top = reinterpret_cast<void*>(&fiber_main);  // after `ret`, rsp % 16 == 8, as after a call
  fiber.stack_pointer = top - 6;
  EMU_TSAN(fiber.tsan = __tsan_create_fiber(0));
}

inline void destroy_fibers() {
  for (Fiber& fiber : state().fibers) {
    if (fiber.stack == nullptr) continue;
    EMU_ASAN(__asan_unpoison_memory_region(fiber.stack, config().stack_bytes));
    EMU_TSAN(__tsan_destroy_fiber(fiber.tsan));
    munmap(fiber.stack - 4096, config().stack_bytes + 4096);
    fiber.stack = nullptr;
  }
  state().fibers.clear();
}

inline std::string where(const Fiber& fiber) {
  char text[300];
  std::snprintf(text, sizeof text, "block (%u,%u,%u) thread (%u,%u,%u) %s %s:%d", blockIdx.x, blockIdx.y,
                blockIdx.z, fiber.thread.x, fiber.thread.y, fiber.thread.z,
                fiber.wait == Wait::exited ? "exited; last at" : fiber.what, fiber.file, fiber.line);
  return text;
}

inline void fail(const std::string& message) {
  if (state().error.empty()) state().error = message;
}
inline void fail_here(const std::string& message) {  // in a fiber, which is never resumed
  fail(message + ": " + where(*state().current));
  to_scheduler();
}

// Hands control to the scheduler until the barrier or collective is complete.
inline void arrive(Wait wait, const char* what, const char* file, int line) {
  Fiber& me = *state().current;
  me.wait = wait;
  me.what = what;
  me.file = file;
  me.line = line;
  EMU_TSAN(
      __tsan_release(&state().launch_end_token));  // acquired by the scheduler alone, at the end of a launch
  to_scheduler();
}

}  // namespace emu
