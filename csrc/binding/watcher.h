#pragma once

#include "event_source.h"

namespace cloister {

// A file of the kernel's that tells of changes by poll(2): cgroup.events, memory.events (kernfs_generic_poll), a pressure
// trigger, an eventfd. Watcher(fd, priority, callback) takes the descriptor.
class Watcher : public FileEvents<Watcher> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit Watcher(const Napi::CallbackInfo& info);

 private:
  void on_event();
  // What the file says now; that also ends the event. Empty: the file is gone.
  Napi::Value read();
  Napi::Value text(const Napi::CallbackInfo& info);
};

}  // namespace cloister
