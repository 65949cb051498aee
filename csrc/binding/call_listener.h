#pragma once

#include <napi.h>

#include <memory>

#include "../sys/unique_fd.h"
#include "watch.h"

namespace cloister {

// The listener of a filter that asks about system calls: seccomp_unotify(2). It arrives through a socket, from the child that
// has installed the filter. CallListener(socket, callback) takes the descriptor.
class CallListener : public Napi::ObjectWrap<CallListener> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit CallListener(const Napi::CallbackInfo& info);

  void end();

 private:
  void on_socket();
  void on_calls();
  Napi::Value answer(const Napi::CallbackInfo& info);
  Napi::Value add_descriptor(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  UniqueFd fd_;  // the socket, then the listener
  Watch* watch_ = nullptr;
  Napi::FunctionReference callback_;
  std::shared_ptr<Napi::AsyncContext> context_;
};

}  // namespace cloister
