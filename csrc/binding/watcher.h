#pragma once

#include <napi.h>

#include <memory>

#include "../sys/unique_fd.h"
#include "watch.h"

namespace cloister {

// A file of the kernel's that tells of changes by poll(2): cgroup.events, memory.events (kernfs_generic_poll), a pressure
// trigger, an eventfd. Watcher(fd, priority, callback) takes the descriptor.
class Watcher : public Napi::ObjectWrap<Watcher> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit Watcher(const Napi::CallbackInfo& info);

  void end();

 private:
  void on_event();
  // What the file says now; that also ends the event. Empty: the file is gone.
  Napi::Value read();
  Napi::Value text(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  UniqueFd fd_;
  Watch* watch_ = nullptr;
  Napi::FunctionReference callback_;
  std::shared_ptr<Napi::AsyncContext> context_;
};

}  // namespace cloister
