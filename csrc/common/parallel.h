// How a CPU kernel gets threads without knowing whose they are: the bindings hand in at::parallel_for, so
// that torch.set_num_threads is obeyed and no second thread pool enters the process; tests hand in a plain
// loop.
#pragma once

#include <cstdint>
#include <type_traits>

namespace pynas {

struct Parallel {
  using Body = void (*)(void* context, int64_t begin, int64_t end);

  int threads = 1;
  void (*run)(int64_t tasks, int64_t grain, Body body, void* context) = nullptr;  // null: run here, serially

  // Calls body(begin, end) on disjoint ranges that cover [0, tasks), each of at least `grain` tasks if
  // possible.
  template <class F>
  void operator()(int64_t tasks, int64_t grain, F&& body) const {
    if (tasks <= 0) return;
    if (run == nullptr || threads == 1) {
      body(int64_t{0}, tasks);
      return;
    }
    run(
        tasks, grain,
        [](void* context, int64_t begin, int64_t end) {
          (*static_cast<std::remove_reference_t<F>*>(context))(begin, end);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  }
};

}  // namespace pynas
