#pragma once

#include "event_source.h"

namespace cloister {

// The listener of a filter that asks about system calls: seccomp_unotify(2). It arrives through a socket, from the child that
// has installed the filter. CallListener(socket, callback) takes the descriptor.
class CallListener : public FileEvents<CallListener> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit CallListener(const Napi::CallbackInfo& info);

 private:
  void on_socket();
  void on_calls();
  Napi::Value answer(const Napi::CallbackInfo& info);
  Napi::Value add_descriptor(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
};

}  // namespace cloister
