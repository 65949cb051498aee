#pragma once

#include <napi.h>
#include <uv.h>

#include <mutex>
#include <set>
#include <vector>

#include "../core/spawner.h"

namespace cloister {

class PlanRun;
class Process;

// What must let go of the loop before the environment is gone.
class Ending {
 public:
  virtual void end() = 0;

 protected:
  ~Ending() = default;
};

// All that one JavaScript environment (the main thread, a worker) owns. Its end kills and reaps what it started.
class Environment {
 public:
  explicit Environment(napi_env env);
  static Environment& of(napi_env env);

  uv_loop_t* loop() const { return loop_; }
  Spawner& spawner() { return spawner_; }
  bool closing() const { return closing_; }

  void add(Process* process) { processes_.insert(process); }
  void remove(Process* process) { processes_.erase(process); }
  void add(Ending* open) { open_.insert(open); }
  void remove(Ending* open) { open_.erase(open); }

  // A handle of this environment's loop was opened, or has been closed.
  void opened() { handles_++; }
  void closed();

  // Descriptors that JavaScript holds as numbers: a worker may be ended at any instruction, and its process lives on.
  int own(int fd) {
    if (fd >= 0) fds_.insert(fd);
    return fd;
  }
  void disown(int fd) { fds_.erase(fd); }

  // From the thread that runs plans.
  void finished(PlanRun* run);
  int begin(PlanRun* run);  // 0, or a negative errno

 private:
  static void teardown(napi_async_cleanup_hook_handle handle, void* self);
  void drain();

  napi_env env_;
  uv_loop_t* loop_ = nullptr;
  uv_async_t* async_ = nullptr;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  Spawner spawner_;
  // Plans without a child have a thread of their own: the other one may sleep in a vfork until its child executes, and a child waits
  // before that for what plans bring about, as the network of a bridge.
  Spawner helper_;
  std::set<Process*> processes_;
  std::set<Ending*> open_;
  std::set<int> fds_;
  std::mutex mutex_;  // guards finished_
  std::vector<PlanRun*> finished_;
  int running_ = 0;
  int handles_ = 0;
  bool closing_ = false;
};

}  // namespace cloister
