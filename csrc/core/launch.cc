#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <thread>

#include "../child/clone.h"
#include "id_map.h"
#include "plan_check.h"

namespace cloister {

namespace {

long pointer(const void* p) { return reinterpret_cast<long>(p); }

void wake(uint32_t* word) { raw_syscall(SYS_futex, pointer(word), FUTEX_WAKE, INT32_MAX); }

// This thread in another network namespace, for the length of a clone: the child begins in it. A namespace that was made ahead
// is not owned by the child's user namespace, so the child could not enter it by itself.
class NetVisit {
 public:
  explicit NetVisit(int fd) {
    if (fd < 0) return;
    home_.reset(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!home_ || setns(fd, CLONE_NEWNET) < 0) error_ = errno;
  }
  ~NetVisit() {
    // Whoever may enter another one may return; else this thread would start the next sandbox on the wrong network.
    if (home_ && setns(home_.get(), CLONE_NEWNET) < 0) abort();
  }
  int error() const { return error_; }

 private:
  UniqueFd home_;
  int error_ = 0;
};

}  // namespace

Launch* Launch::create(const uint8_t* plan, size_t size, const int32_t* slots, size_t slot_count, const char** reason) {
  if (slot_count > kMaxSlots) {
    *reason = "too many slots";
    return nullptr;
  }
  Arena* arena = Arena::create(size);
  if (arena == nullptr) {
    *reason = "no memory for the plan";
    return nullptr;
  }
  memcpy(arena->plan(), plan, size);
  *reason = check_plan(arena->plan(), size);
  if (*reason != nullptr) {
    Arena::destroy(arena);
    return nullptr;
  }
  for (size_t i = 0; i < kMaxSlots; i++) arena->shared.slots[i] = i < slot_count ? slots[i] : -1;
  arena->shared.pidfd = -1;
  return new Launch(arena);
}

Launch::~Launch() {
  close_slots();
  Arena::destroy(arena_);
}

void Launch::fail(Phase phase, int error) {
  Report& report = shared().report;
  report.phase = static_cast<uint32_t>(phase);
  report.step = header().join_end;
  __atomic_store_n(&report.error, error, __ATOMIC_RELEASE);
}

void Launch::run(const uint32_t* owner) {
  shared().owner = owner;
  if (header().report_slot >= 0) shared().slots[header().report_slot] = report.get();
  {
    std::lock_guard lock(mutex_);
    if (cancelled_) fail(Phase::step, ECANCELED);
  }
  const uint8_t* plan = arena_->plan();
  if (shared().report.error == 0 && run_steps(plan, 0, header().parent_end, shared().slots, &shared()) == 0) {
    struct clone_args args = {};
    // CLONE_VM without CLONE_VFORK: this thread goes on, to write the id maps while the child already builds its root.
    // The child never uses libc, so sharing our TLS does not harm.
    args.flags = header().clone_flags | CLONE_VM | kPidfdFlag | CLONE_CLEAR_SIGHAND;
    args.pidfd = reinterpret_cast<uint64_t>(&shared().pidfd);
    args.stack = reinterpret_cast<uint64_t>(arena_->child_stack());
    args.stack_size = Arena::kStackSize;
    args.exit_signal = SIGCHLD;
    if (header().cgroup_slot >= 0) {
      args.flags |= kIntoCgroupFlag;
      args.cgroup = static_cast<uint64_t>(shared().slots[header().cgroup_slot]);
    }
    arena_->child.plan = plan;
    arena_->child.shared = &shared();
    const NetVisit visit(header().net_slot < 0 ? -1 : shared().slots[header().net_slot]);
    if (visit.error() != 0) {
      fail(Phase::setns, visit.error());
    } else if (header().joiner) {
      // With CLONE_PARENT the child is ours, not the joiner's; the kernel wants no exit signal then (clone3_args_valid).
      args.flags |= CLONE_PARENT | CLONE_PARENT_SETTID;
      args.parent_tid = reinterpret_cast<uint64_t>(&shared().pid);
      args.exit_signal = 0;
      static_assert(sizeof(args) <= sizeof(Arena::clone_args_storage));
      memcpy(&arena_->child_clone_args, &args, sizeof(args));
      arena_->child.clone_args = &arena_->child_clone_args;
      join();
    } else if (header().clone_flags != 0) {
      memcpy(arena_->child.slots, shared().slots, sizeof(shared().slots));
      if (header().vfork) {
        clone_in_vfork(&args);
      } else if (clone_child(&args)) {
        write_ids(shared().pid);
      }
    }
    bool kill_now = false;
    {
      std::lock_guard lock(mutex_);
      kill_now = cancelled_ && pidfd_;
    }
    if (kill_now) (void)signal(SIGKILL);
  }
  if (header().report_slot >= 0) shared().slots[header().report_slot] = -1;  // it is not the plan's
  close_slots();
  // Whoever waits for the pipe's end or for `done` may delete this launch at once.
  UniqueFd last = std::move(report);
  const std::function<void()> callback = std::move(done);
  last.reset();
  if (callback) callback();
}

bool Launch::clone_child(struct clone_args* args) {
  const long pid = clone_process(args, child_main, &arena_->child, &arena_->child.clears_handlers);
  if (pid < 0) {
    fail(Phase::clone_child, static_cast<int>(-pid));
    return false;
  }
  shared().pid = static_cast<int32_t>(pid);
  std::lock_guard lock(mutex_);
  pidfd_.reset(shared().pidfd);
  return true;
}

// Two things ask for a vfork parent that waits. Writing oom_score_adj of a task that shares memory writes it for all who share that
// memory, us included, unless there is one (__set_oom_adj in fs/proc/base.c). And when the child's control group is out of memory,
// the kernel takes the task with most of it, which is the child with ours, and kills all who share it; not one in a vfork (in_vfork
// in mm/oom_kill.c). So here this thread sleeps, and another, alive for just that time, does what this one would have done.
void Launch::clone_in_vfork(struct clone_args* args) {
  args->flags |= CLONE_VFORK | CLONE_PARENT_SETTID;
  args->parent_tid = reinterpret_cast<uint64_t>(&shared().pid);
  std::thread writer([this] {
    uint32_t* state = &shared().state;
    while (__atomic_load_n(state, __ATOMIC_ACQUIRE) == 0) raw_syscall(SYS_futex, pointer(state), FUTEX_WAIT, 0, 0);
    if (shared().pid <= 0) return;
    {
      std::lock_guard lock(mutex_);
      pidfd_.reset(shared().pidfd);
    }
    write_ids(shared().pid);
  });
  const long pid = clone_process(args, child_main, &arena_->child, &arena_->child.clears_handlers);
  if (pid < 0) fail(Phase::clone_child, static_cast<int>(-pid));
  // It has not run if there is none, and if it was killed at birth, as a group that has been killed does it (cgroup_post_fork).
  uint32_t created = static_cast<uint32_t>(ChildState::created);
  if (__atomic_compare_exchange_n(&shared().state, &created, static_cast<uint32_t>(ChildState::running), false,
                                  __ATOMIC_RELEASE, __ATOMIC_RELAXED))
    wake(&shared().state);
  writer.join();
}

// The joiner lives for a moment, with our descriptor table, to be where clone3(2) or setns(2) brings it: a thread of ours can
// neither make nor join a user namespace (userns_install, unshare_userns refuse threads). It makes the child, if there is
// one, as our child, and ends.
void Launch::join() {
  struct clone_args args = {};
  args.flags = header().join_flags | CLONE_FILES | CLONE_CLEAR_SIGHAND | (header().own_memory ? 0 : CLONE_VM);
  args.stack = reinterpret_cast<uint64_t>(arena_->joiner_stack());
  args.stack_size = Arena::kStackSize;
  const long joiner = clone_process(&args, joiner_main, &arena_->child, &arena_->child.clears_handlers);
  if (joiner < 0) return fail(Phase::clone_joiner, static_cast<int>(-joiner));
  const bool own_ids = header().join_flags & CLONE_NEWUSER;
  if (own_ids) write_ids(static_cast<pid_t>(joiner));
  while (waitpid(static_cast<pid_t>(joiner), nullptr, __WALL) < 0 && errno == EINTR) {
  }
  if (shared().pidfd < 0) {
    // A joiner that was killed leaves no report of its own.
    if (header().clone_flags != 0 && shared().report.error == 0) fail(Phase::clone_joiner, EINTR);
    return;
  }
  {
    std::lock_guard lock(mutex_);
    pidfd_.reset(shared().pidfd);
  }
  if (!own_ids) write_ids(shared().pid);
}

void Launch::write_ids(pid_t pid) {
  const auto [phase, error] = write_id_maps(pid, header(), arena_->plan());
  if (error != 0) fail(phase, error);
  __atomic_store_n(&shared().ids, error == 0 ? 1u : 2u, __ATOMIC_RELEASE);
  wake(&shared().ids);
}

void Launch::cancel() {
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  (void)signal(SIGKILL);
}

int Launch::signal(int number) {
  std::lock_guard lock(mutex_);
  if (!pidfd_) return -ESRCH;
  return static_cast<int>(raw_syscall(SYS_pidfd_send_signal, pidfd_.get(), number, 0, 0));
}

UniqueFd Launch::take_pidfd() {
  std::lock_guard lock(mutex_);
  return std::move(pidfd_);
}

void Launch::close_slots() {
  for (uint32_t i = 0; i < kMaxSlots; i++) {
    const bool kept = keeps(header(), i);
    int32_t& fd = shared().slots[i];
    if (fd >= 0 && !kept) {
      (void)close(fd);
      fd = -1;
    }
  }
}

}  // namespace cloister
