// The thread that runs launches: all are run, in their order, and stop() joins it.

#include "core/spawner.h"

#include <fcntl.h>
#include <sched.h>

#include <atomic>
#include <memory>

#include "builder.h"
#include "check.h"
#include "processes.h"

using namespace cloister;

namespace {

int threads() {
  int count = 0;
  DIR* folder = opendir("/proc/self/task");
  while (readdir(folder) != nullptr) count++;
  closedir(folder);
  return count;
}

std::vector<std::unique_ptr<Launch>> launches(const Builder& builder, int count) {
  const std::vector<uint8_t> plan = builder.encode();
  std::vector<std::unique_ptr<Launch>> made;
  for (int i = 0; i < count; i++) {
    const char* reason = nullptr;
    made.emplace_back(Launch::create(plan.data(), plan.size(), nullptr, 0, &reason));
    CHECK(made.back() != nullptr);
  }
  return made;
}

void runs_all_in_order() {
  Builder builder;
  builder.add(StepKind::openat, {kCwd, "/dev/null", number(O_RDONLY | O_CLOEXEC), number(0)}, {.out = 0}).end_parent();
  auto all = launches(builder, 200);
  Spawner spawner;
  std::atomic<int> next = 0;
  bool ordered = true;
  for (int i = 0; i < 200; i++) {
    all[i]->done = [&, i] { ordered = ordered && next++ == i; };
    CHECK_EQ(spawner.submit(all[i].get()), 0);
  }
  spawner.stop();
  CHECK_EQ(next, 200);
  CHECK(ordered);
}

void stop_joins() {
  const int before = threads();
  Spawner never_used;
  never_used.stop();
  CHECK_EQ(threads(), before);
  Spawner spawner;
  auto all = launches(Builder(), 1);
  CHECK_EQ(spawner.submit(all[0].get()), 0);
  spawner.stop();
  CHECK_EQ(threads(), before);
  spawner.stop();
}

void children_outlive_their_launch() {
  Builder builder;
  builder.header.clone_flags = CLONE_FS;
  builder.add(StepKind::exec, {Words{"/bin/true"}, Words{"true"}, Words{}});
  auto all = launches(builder, 200);
  Spawner spawner;
  for (const auto& launch : all) CHECK_EQ(spawner.submit(launch.get()), 0);
  spawner.stop();
  for (const auto& launch : all) CHECK_EQ(reaped(*launch), 0);
  CHECK(!has_children());
}

}  // namespace

int main() {
  const int before = open_descriptors();
  runs_all_in_order();
  stop_joins();
  children_outlive_their_launch();
  CHECK_EQ(open_descriptors(), before);
  return result();
}
