// The memory of a spawn: its parts do not overlap, a guard page lies below the stacks, and what is used again is clean.

#include "core/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <set>
#include <thread>
#include <vector>

#include "check.h"

using namespace cloister;

namespace {

// The kernel reads this byte for us, and says EFAULT where we would die.
bool readable(const uint8_t* address) {
  int ends[2];
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  const bool done = write(ends[1], address, 1) == 1;
  close(ends[0]);
  close(ends[1]);
  return done;
}

void parts() {
  for (const size_t size : {size_t{200}, size_t{60000}, size_t{1000000}}) {
    Arena* arena = Arena::create(size);
    CHECK(arena != nullptr);
    const uint8_t* start = reinterpret_cast<const uint8_t*>(arena);
    CHECK(arena->plan() >= start + sizeof(Arena));
    CHECK_EQ(reinterpret_cast<uintptr_t>(arena->plan()) % 8, 0);
    const uint8_t* stacks = arena->joiner_stack();
    CHECK(arena->plan() + size < stacks - 4096);
    CHECK_EQ(arena->child_stack() - stacks, Arena::kStackSize);
    CHECK_EQ(reinterpret_cast<uintptr_t>(stacks) % 16, 0);
    CHECK(readable(arena->plan() + size));
    CHECK(readable(stacks));
    CHECK(readable(arena->child_stack() + Arena::kStackSize - 1));
    CHECK(!readable(stacks - 1));
    CHECK(!readable(stacks - 4096));
    Arena::destroy(arena);
  }
  Arena::destroy(nullptr);
}

void used_again_it_is_clean() {
  Arena* first = Arena::create(100);
  first->shared.ids = 2;
  first->shared.report.error = EPERM;
  first->shared.slots[7] = 7;
  Arena::destroy(first);
  Arena* second = Arena::create(200);
  CHECK(second == first);
  CHECK_EQ(second->shared.ids, 0);
  CHECK_EQ(second->shared.report.error, 0);
  CHECK_EQ(second->shared.slots[7], 0);
  Arena::destroy(second);
}

void many_at_once() {
  std::set<Arena*> all;
  for (int i = 0; i < 40; i++) all.insert(Arena::create(100));
  CHECK_EQ(all.size(), 40);
  for (Arena* arena : all) Arena::destroy(arena);
}

void from_many_threads() {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++)
    threads.emplace_back([i] {
      for (int n = 0; n < 500; n++) {
        Arena* arena = Arena::create(100);
        arena->shared.pid = i;
        std::this_thread::yield();
        if (arena->shared.pid != i) abort();
        Arena::destroy(arena);
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(true);
}

}  // namespace

int main() {
  parts();
  used_again_it_is_clean();
  many_at_once();
  from_many_threads();
  return result();
}
