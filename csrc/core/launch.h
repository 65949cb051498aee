#pragma once

#include <linux/sched.h>

#include <functional>
#include <mutex>

#include "../sys/unique_fd.h"
#include "arena.h"

namespace cloister {

// One plan on its way: made on the JavaScript thread, run by the spawner's thread, looked at again on the JavaScript
// thread once the report pipe has reached its end or `done` has been called.
class Launch {
 public:
  // Takes the descriptors that `slots` holds. nullptr with `reason` set if the plan is refused or memory is short.
  static Launch* create(const uint8_t* plan, size_t size, const int32_t* slots, size_t slot_count, const char** reason);
  ~Launch();
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  // Runs the plan to the point where the child is on its own. On the spawner's thread, whose life `owner` tells.
  void run(const uint32_t* owner);

  // From any thread: no child will start, or the one that has is killed.
  void cancel();
  // From any thread: pidfd_send_signal; negative errno, -ESRCH before there is a child.
  int signal(int number);

  const PlanHeader& header() const { return *reinterpret_cast<const PlanHeader*>(arena_->plan()); }
  Shared& shared() { return arena_->shared; }
  // For whoever waits for the child from now on.
  UniqueFd take_pidfd();

  UniqueFd report;             // write end of the report pipe, if there is one
  std::function<void()> done;  // called at the end of run(), on the spawner's thread

 private:
  explicit Launch(Arena* arena) : arena_(arena) {}
  void fail(Phase phase, int error);
  void join();
  bool clone_child(struct clone_args* args);
  void clone_in_vfork(struct clone_args* args);
  void write_ids(pid_t pid);
  void close_slots();

  Arena* arena_;
  std::mutex mutex_;  // guards pidfd_ and cancelled_
  UniqueFd pidfd_;
  bool cancelled_ = false;
};

}  // namespace cloister
