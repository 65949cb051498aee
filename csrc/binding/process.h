#pragma once

#include <napi.h>

#include <memory>

#include "../core/launch.h"
#include "watch.h"

namespace cloister {

class Environment;

// A plan with a child, from the launch to the reaping. JavaScript sees
//   new Process(plan, slots, reportPipe, detached, onStart, onExit)
//   onStart(failure | undefined, started, pid, kept): the report pipe has reached its end
//   onExit(code | null, signal | 0, usage): the child has been reaped; not called if it never was
class Process : public Napi::ObjectWrap<Process> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit Process(const Napi::CallbackInfo& info);

  void kill_for_teardown();
  void end_for_teardown();

 private:
  Napi::Value signal(const Napi::CallbackInfo& info);
  Napi::Value cancel(const Napi::CallbackInfo& info);
  Napi::Value set_ref(const Napi::CallbackInfo& info);
  Napi::Value pidfd(const Napi::CallbackInfo& info);

  void on_report();
  void on_exit();
  void call(Napi::FunctionReference& callback, const std::vector<napi_value>& arguments);
  void end();

  Environment& environment_;
  std::unique_ptr<Launch> launch_;
  UniqueFd report_, pidfd_;
  Watch* watch_ = nullptr;
  Napi::FunctionReference on_start_, on_exit_;
  std::unique_ptr<Napi::AsyncContext> context_;
  bool detached_ = false;
  bool referenced_ = true;
};

}  // namespace cloister
