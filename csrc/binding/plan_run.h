#pragma once

#include <napi.h>

#include <memory>

#include "../core/launch.h"

namespace cloister {

// A plan without a child: runPlan(plan, slots) → Promise of { kept, head }: the descriptors in the kept slots, and what a
// read_head step has read. Parent steps, or steps of a joiner that shares our descriptor table.
class PlanRun {
 public:
  static Napi::Value start(const Napi::CallbackInfo& info);
  Launch* launch() { return launch_.get(); }
  void settle(bool discard);

 private:
  PlanRun(Napi::Env env, Launch* launch) : env_(env), deferred_(env), launch_(launch) {}
  Napi::Env env_;
  Napi::Promise::Deferred deferred_;
  std::unique_ptr<Launch> launch_;
};

// {phase, step, errno, candidate, head} of a launch that failed, else undefined.
Napi::Value failure_of(Napi::Env env, Launch& launch);
// The kept slots' descriptors, which are the caller's from now on: [slot, fd, slot, fd, …].
Napi::Array take_kept(Napi::Env env, Launch& launch);
// Reads (plan: Uint8Array, slots: Int32Array). Throws and returns nullptr if the plan is refused; takes the descriptors
// either way.
Launch* launch_from(const Napi::CallbackInfo& info);

}  // namespace cloister
