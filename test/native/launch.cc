// Launches with real children. csrc/child is built without sanitizers here: the child shares our memory and the TLS of the
// thread that cloned it, and the sanitizers' run time would be called on a stack that it does not know.

#include "core/launch.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "builder.h"
#include "check.h"
#include "processes.h"

using namespace cloister;

namespace {

// CLONE_NEWNS and its like need root, or a user namespace; these plans need neither.
constexpr uint64_t kPlainChild = CLONE_FS;

std::unique_ptr<Launch> launched(const Builder& builder, std::vector<int32_t> slots = {}) {
  const std::vector<uint8_t> plan = builder.encode();
  const char* reason = "";
  std::unique_ptr<Launch> launch(Launch::create(plan.data(), plan.size(), slots.data(), slots.size(), &reason));
  CHECK(launch != nullptr && reason == nullptr);
  return launch;
}

Builder executing(const char* path, Words argv = {"program"}) {
  Builder builder;
  builder.header.clone_flags = kPlainChild;
  builder.add(StepKind::exec, {Words{path}, std::move(argv), Words{}});
  return builder;
}

void runs_a_program() {
  auto launch = launched(executing("/bin/true"));
  bool called = false;
  launch->done = [&] { called = true; };
  launch->run(nullptr);
  CHECK(called);
  CHECK(launch->shared().pid > 0);
  CHECK_EQ(reaped(*launch), 0);
  CHECK_EQ(launch->shared().report.error, 0);
  CHECK_EQ(launch->shared().state, static_cast<int>(ChildState::executing));
}

void a_failing_step_of_the_child_is_reported() {
  Builder builder;
  builder.header.clone_flags = kPlainChild;
  builder.add(StepKind::openat, {kCwd, "/dev/null", number(O_RDONLY | O_CLOEXEC), number(0)}, {.out = 0}).end_parent();
  builder.add(StepKind::umask, {number(022)});
  builder.add(StepKind::openat, {kCwd, "/no/such", number(O_RDONLY), number(0)});
  auto launch = launched(builder);
  launch->run(nullptr);
  CHECK_EQ(reaped(*launch), 127);
  CHECK_EQ(launch->shared().report.error, ENOENT);
  CHECK_EQ(launch->shared().report.step, 2);
}

void the_report_pipe_ends_at_exec_or_failure() {
  for (const char* path : {"/bin/true", "/no/such"}) {
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    UniqueFd reading(ends[0]);
    auto launch = launched(executing(path));
    launch->report = UniqueFd(ends[1]);
    launch->run(nullptr);
    char byte;
    CHECK_EQ(read(reading.get(), &byte, 1), 0);
    CHECK_EQ(launch->shared().report.error, strcmp(path, "/no/such") == 0 ? ENOENT : 0);
    (void)reaped(*launch);
  }
}

void a_failing_step_of_the_parent_starts_no_child() {
  Builder builder;
  builder.header.clone_flags = kPlainChild;
  builder.add(StepKind::openat, {kCwd, "/dev/null", number(O_RDONLY | O_CLOEXEC), number(0)}, {.out = 1});
  builder.add(StepKind::openat, {kCwd, "/no/such", number(O_RDONLY), number(0)}).end_parent();
  builder.add(StepKind::exec, {Words{"/bin/true"}, Words{"true"}, Words{}});
  auto launch = launched(builder);
  launch->run(nullptr);
  CHECK_EQ(launch->shared().report.error, ENOENT);
  CHECK_EQ(launch->shared().report.step, 1);
  CHECK(!launch->take_pidfd());
}

void the_clone_is_refused() {
  Builder builder = executing("/bin/true");
  builder.header.clone_flags = CLONE_FS | CLONE_NEWNS;  // EINVAL by clone(2)
  auto launch = launched(builder);
  launch->run(nullptr);
  CHECK_EQ(launch->shared().report.error, EINVAL);
  CHECK_EQ(launch->shared().report.phase, static_cast<int>(Phase::clone_child));
  CHECK(!launch->take_pidfd());
}

void cancelled_before_it_runs() {
  auto launch = launched(executing("/bin/true"));
  launch->cancel();
  CHECK_EQ(launch->signal(SIGTERM), -ESRCH);
  launch->run(nullptr);
  CHECK_EQ(launch->shared().report.error, ECANCELED);
  CHECK(!launch->take_pidfd());
}

void cancelled_while_it_runs() {
  auto launch = launched(executing("/bin/sleep", {"sleep", "60"}));
  launch->run(nullptr);
  launch->cancel();
  CHECK_EQ(reaped(*launch), -SIGKILL);
}

void kept_slots_stay_open() {
  Builder builder;
  builder.add(StepKind::openat, {kCwd, "/dev/null", number(O_RDONLY | O_CLOEXEC), number(0)}, {.out = 2});
  builder.add(StepKind::openat, {kCwd, "/dev/zero", number(O_RDONLY | O_CLOEXEC), number(0)}, {.out = 3}).end_parent();
  builder.keep(3).keep(0);
  const int given = open("/dev/null", O_RDONLY | O_CLOEXEC), dropped = open("/dev/null", O_RDONLY | O_CLOEXEC);
  auto launch = launched(builder, {given, dropped});
  launch->run(nullptr);
  const int32_t* slots = launch->shared().slots;
  CHECK_EQ(launch->shared().report.error, 0);
  CHECK_EQ(slots[0], given);
  CHECK_EQ(slots[1], -1);
  CHECK_EQ(slots[2], -1);
  CHECK(slots[3] >= 0 && fcntl(slots[3], F_GETFD) == FD_CLOEXEC);
  CHECK_EQ(fcntl(dropped, F_GETFD), -1);
  for (const int slot : {0, 3}) close(slots[slot]);
}

void a_joiner_fills_our_slots() {
  Builder builder;
  builder.header.joiner = 1;
  builder.end_parent();
  builder.add(StepKind::openat, {kCwd, "/dev/null", number(O_RDONLY | O_CLOEXEC), number(0)}, {.out = 4}).end_join();
  builder.keep(4);
  auto launch = launched(builder);
  launch->run(nullptr);
  CHECK_EQ(launch->shared().report.error, 0);
  CHECK(launch->shared().slots[4] >= 0);
  close(launch->shared().slots[4]);
}

void a_joiner_makes_our_child() {
  Builder builder;
  builder.header.joiner = 1;
  builder.header.clone_flags = kPlainChild;
  builder.end_parent().add(StepKind::umask, {number(022)}).end_join();
  builder.add(StepKind::exec, {Words{"/bin/sh"}, Words{"sh", "-c", "exit 3"}, Words{}});
  auto launch = launched(builder);
  launch->run(nullptr);
  CHECK_EQ(reaped(*launch), 3);
  CHECK_EQ(launch->shared().report.error, 0);
}

void ids_are_written_while_the_child_waits() {
  Builder builder;
  builder.header.clone_flags = CLONE_NEWUSER;
  const std::string map = "0 " + std::to_string(geteuid()) + " 1\n";
  builder.uid_map = map.c_str();
  builder.oom_score_adj = "500";
  builder.add(StepKind::await_ids, {});
  builder.add(StepKind::exec,
              {Words{"/bin/sh"}, Words{"sh", "-c", "test $(id -u) = 0 && test $(cat /proc/self/oom_score_adj) = 500"},
               Words{"PATH=/bin:/usr/bin"}});
  auto launch = launched(builder);
  launch->run(nullptr);
  if (launch->shared().report.phase == static_cast<uint32_t>(Phase::clone_child)) {
    printf("user namespaces are refused here: errno %d\n", launch->shared().report.error);
    return;
  }
  CHECK_EQ(reaped(*launch), 0);
  CHECK_EQ(launch->shared().report.error, 0);

  // Ours must not have changed with it: it shares our memory.
  char own[16] = {};
  const UniqueFd fd(open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC));
  CHECK(read(fd.get(), own, sizeof(own) - 1) > 0);
  CHECK(strcmp(own, "500\n") != 0);
}

void refused_plans() {
  const uint8_t nothing[8] = {};
  const char* reason = nullptr;
  CHECK(Launch::create(nothing, sizeof(nothing), nullptr, 0, &reason) == nullptr);
  CHECK_TEXT(reason, "plan too short or too long");
  const std::vector<int32_t> slots(kMaxSlots + 1, -1);
  CHECK(Launch::create(nothing, sizeof(nothing), slots.data(), slots.size(), &reason) == nullptr);
  CHECK_TEXT(reason, "too many slots");
}

}  // namespace

int main() {
  const auto all = [] {
    runs_a_program();
    a_failing_step_of_the_child_is_reported();
    the_report_pipe_ends_at_exec_or_failure();
    a_failing_step_of_the_parent_starts_no_child();
    the_clone_is_refused();
    cancelled_before_it_runs();
    cancelled_while_it_runs();
    kept_slots_stay_open();
    a_joiner_fills_our_slots();
    a_joiner_makes_our_child();
    ids_are_written_while_the_child_waits();
    refused_plans();
  };
  all();
  const int before = open_descriptors();
  for (int i = 0; i < 5; i++) all();
  CHECK_EQ(open_descriptors(), before);
  CHECK(!has_children());
  return result();
}
