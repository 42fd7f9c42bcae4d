// kernel_tests ORDER SEED BLOCKS CASE...: runs cases, all in one process.
//   ORDER: forward, reverse, random; BLOCKS: ordered, unordered (for ThreadSanitizer, between blocks of a
//   launch). All three are for the CUDA emulation; CPU kernels take no notice of them.
// Each case prints "BEGIN name" and "END name ok|failed"; a sanitizer's report stands between the two.
#include <algorithm>
#include <cstring>

#include "check.h"
#if defined(PYNAS_CUDA_EMULATION)
#include "common/cuda_compat.h"
#endif

int main(int argc, char** argv) {
  if (argc < 5) {
    std::printf("usage: kernel_tests forward|reverse|random SEED ordered|unordered CASE...\n");
    return 2;
  }
#if defined(PYNAS_CUDA_EMULATION)
  const std::string order = argv[1];
  emu::Config& config = emu::config();
  if (order == "reverse") config.order = emu::Order::reverse;
  if (order == "random") config.order = emu::Order::random;
  config.seed = static_cast<unsigned>(std::stoul(argv[2]));
  config.blocks_ordered = std::strcmp(argv[3], "ordered") == 0;
#endif
  for (int i = 4; i < argc; ++i) {
    const auto found = std::find_if(check::cases().begin(), check::cases().end(),
                                    [&](const check::Case& c) { return c.name == argv[i]; });
    std::fprintf(stderr, "BEGIN %s\n", argv[i]);
    check::failures() = found == check::cases().end() ? 1 : 0;
    try {
      if (found != check::cases().end()) found->run();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "  error: %s\n", error.what());
      ++check::failures();
    }
    std::fprintf(stderr, "END %s %s\n", argv[i], check::failures() == 0 ? "ok" : "failed");
  }
  return 0;
}
