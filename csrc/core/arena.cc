#include "arena.h"

#include <sys/mman.h>

#include <mutex>
#include <new>

namespace cloister {

namespace {

// Arenas of the usual size are kept for the next spawn: their pages have been faulted in. No destructor may run while
// another thread still spawns, so the list is never destroyed.
constexpr size_t kUsual = 131072;
constexpr int kKept = 16;
struct Spare {
  std::mutex mutex;
  Arena* arenas[kKept];
  int count = 0;
};
Spare& spare() {
  static Spare* const instance = new Spare;
  return *instance;
}

size_t page_up(size_t size) { return (size + 4095) & ~static_cast<size_t>(4095); }

}  // namespace

Arena* Arena::create(size_t plan_size) {
  static_assert(sizeof(Arena) <= kPlanOffset);
  // With a guard page between the plan and the stacks.
  const size_t needed = kPlanOffset + page_up(plan_size + 64) + 4096 + 2 * kStackSize;
  const size_t size = needed < kUsual ? kUsual : needed;
  if (size == kUsual) {
    std::lock_guard lock(spare().mutex);
    if (spare().count > 0) {
      Arena* arena = spare().arenas[--spare().count];
      arena->shared = Shared{};
      return arena;
    }
  }
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  Arena* arena = new (memory) Arena{};
  arena->mapped = size;
  mprotect(static_cast<uint8_t*>(memory) + size - 2 * kStackSize - 4096, 4096, PROT_NONE);
  return arena;
}

void Arena::destroy(Arena* arena) {
  if (arena == nullptr) return;
  if (arena->mapped == kUsual) {
    std::lock_guard lock(spare().mutex);
    if (spare().count < kKept) {
      spare().arenas[spare().count++] = arena;
      return;
    }
  }
  munmap(arena, arena->mapped);
}

}  // namespace cloister
