// A heap whose larger blocks end at a page that may not be touched, to be preloaded under code that nobody
// can instrument, such as kernels that oneDNN generates. A read or write behind a block faults at once. What
// alignment leaves between a block and its pages is filled with a pattern and looked at when the block is
// freed; a block found written around aborts the process with a line that says so.
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);
}

namespace {

constexpr size_t kPage = 4096, kSmallest = 512, kAlignment = 16;
constexpr size_t kPages = size_t{1} << 24;  // 64 GiB of addresses, handed out once each and never again
constexpr size_t kMost = 24000;             // live blocks: a process may have 65,530 mappings, two to a block
constexpr unsigned char kPattern = 0xA5;

struct Block {
  size_t size, pages;
};

unsigned char* range = nullptr;
Block* blocks = nullptr;  // by the page that a block begins in
size_t next = 1;
std::atomic<size_t> live{0};
std::atomic<int> enabled{0};
std::atomic_flag busy = ATOMIC_FLAG_INIT;

class Lock {
 public:
  Lock() {
    while (busy.test_and_set(std::memory_order_acquire)) {
    }
  }
  ~Lock() { busy.clear(std::memory_order_release); }
};

bool owns(const void* p) { return range != nullptr && p >= range && p < range + kPages * kPage; }

size_t page_of(const void* p) {
  return static_cast<size_t>(static_cast<const unsigned char*>(p) - range) / kPage;
}

bool reserve() {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* table = mmap(nullptr, kPages * sizeof(Block), PROT_READ | PROT_WRITE, kFlags, -1, 0);
  void* addresses = mmap(nullptr, kPages * kPage, PROT_NONE, kFlags, -1, 0);
  if (table == MAP_FAILED || addresses == MAP_FAILED) return false;
  blocks = static_cast<Block*>(table);
  range = static_cast<unsigned char*>(addresses);
  return true;
}

void* allocate(size_t size, size_t alignment) {
  if (!enabled.load(std::memory_order_relaxed) || size < kSmallest || alignment > kPage) return nullptr;
  const size_t room = (size + alignment - 1) / alignment * alignment;
  const size_t pages = (room + kPage - 1) / kPage;
  size_t first;
  {
    const Lock lock;
    if (live >= kMost || next + pages + 1 > kPages || (range == nullptr && !reserve())) return nullptr;
    first = next;
    next += pages + 1;  // the one behind stays forbidden, as the one before is
  }
  unsigned char* base = range + first * kPage;
  if (mprotect(base, pages * kPage, PROT_READ | PROT_WRITE) != 0) return nullptr;
  unsigned char* user = base + pages * kPage - room;
  memset(base, kPattern, static_cast<size_t>(user - base));
  memset(user + size, kPattern, room - size);
  blocks[first] = {size, pages};
  ++live;
  return user;
}

[[noreturn]] void report(const Block& block, const char* where) {
  char line[160];
  const int n =
      snprintf(line, sizeof line, "guarded heap: written %s a block of %zu bytes\n", where, block.size);
  if (write(2, line, static_cast<size_t>(n)) < 0) abort();
  abort();
}

bool untouched(const unsigned char* from, const unsigned char* to) {
  for (; from < to; ++from) {
    if (*from != kPattern) return false;
  }
  return true;
}

void release(void* p) {
  const size_t first = page_of(p);
  const Block block = blocks[first];
  unsigned char *base = range + first * kPage, *user = static_cast<unsigned char*>(p);
  if (block.pages == 0) abort();  // freed twice
  if (!untouched(base, user)) report(block, "before");
  if (!untouched(user + block.size, base + block.pages * kPage)) report(block, "behind");
  blocks[first] = {0, 0};
  madvise(base, block.pages * kPage, MADV_DONTNEED);
  mprotect(base, block.pages * kPage, PROT_NONE);  // whoever still reads it faults
  --live;
}

}  // namespace

extern "C" {

void guarded_heap_enable(int on) { enabled.store(on); }
size_t guarded_heap_live() { return live; }

void* malloc(size_t size) {
  void* p = allocate(size, kAlignment);
  return p != nullptr ? p : __libc_malloc(size);
}

void* calloc(size_t count, size_t size) {
  size_t total;
  if (__builtin_mul_overflow(count, size, &total)) return nullptr;
  void* p = allocate(total, kAlignment);  // fresh pages are zero
  return p != nullptr ? p : __libc_calloc(count, size);
}

void free(void* p) {
  if (owns(p)) {
    release(p);
  } else {
    __libc_free(p);
  }
}

void* realloc(void* p, size_t size) {
  if (!owns(p)) return __libc_realloc(p, size);
  const size_t old = blocks[page_of(p)].size;
  void* fresh = malloc(size);
  if (fresh == nullptr) return nullptr;
  memcpy(fresh, p, old < size ? old : size);
  free(p);
  return fresh;
}

void* memalign(size_t alignment, size_t size) {
  void* p = allocate(size, alignment);
  return p != nullptr ? p : __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void** result, size_t alignment, size_t size) {
  void* p = memalign(alignment, size);
  if (p == nullptr) return ENOMEM;
  *result = p;
  return 0;
}

size_t malloc_usable_size(void* p) {
  if (owns(p)) return blocks[page_of(p)].size;
  static const auto real = reinterpret_cast<size_t (*)(void*)>(dlsym(RTLD_NEXT, "malloc_usable_size"));
  return real(p);
}
}
