#pragma once

#include <napi.h>

#include <functional>
#include <initializer_list>
#include <memory>
#include <utility>

#include "../sys/unique_fd.h"
#include "environment.h"
#include "watch.h"

namespace cloister {

// An object of JavaScript's that calls back when something happens: until it is closed, or its environment ends. It is not collected before.
template <typename T>
class EventSource : public Napi::ObjectWrap<T>, public Ending {
 public:
  void end() final {
    if (context_ == nullptr) return;
    stop();
    Environment::of(this->Env()).remove(this);
    callback_.Reset();
    context_.reset();
    this->Unref();
  }

 protected:
  EventSource(const Napi::CallbackInfo& info, const char* name, const Napi::Value& callback)
      : Napi::ObjectWrap<T>(info),
        callback_(Napi::Persistent(callback.As<Napi::Function>())),
        context_(std::make_shared<Napi::AsyncContext>(info.Env(), name, info.This().As<Napi::Object>())) {}

  // From now on there are events.
  void begin() {
    Environment::of(this->Env()).add(this);
    this->Ref();  // until end()
  }

  // Lets go of what they come from.
  virtual void stop() = 0;

  void tell(const std::initializer_list<napi_value>& arguments) {
    Napi::Env env = this->Env();
    // The callback may close this.
    const std::shared_ptr<Napi::AsyncContext> context = context_;
    callback_.MakeCallback(this->Value(), arguments, *context);
    // What a listener throws is the program's business, as with any of Node's own callbacks.
    if (env.IsExceptionPending()) napi_fatal_exception(env, env.GetAndClearPendingException().Value());
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    end();
    return info.Env().Undefined();
  }

 private:
  Napi::FunctionReference callback_;
  std::shared_ptr<Napi::AsyncContext> context_;
};

// Its events are those of a descriptor, its first argument, which it takes.
template <typename T>
class FileEvents : public EventSource<T> {
 protected:
  FileEvents(const Napi::CallbackInfo& info, const char* name, const Napi::Value& callback)
      : EventSource<T>(info, name, callback), fd_(info[0].As<Napi::Number>().Int32Value()) {
    Environment::of(info.Env()).disown(fd_.get());
  }

  // `keeps_alive`: the loop waits for it.
  void begin(std::function<void()> on_event, bool keeps_alive, int events = UV_READABLE) {
    if (!watch(std::move(on_event), keeps_alive, events)) {
      Napi::Error::New(this->Env(), "cloister: the event loop refuses this file").ThrowAsJavaScriptException();
      return;
    }
    EventSource<T>::begin();
  }

  bool watch(std::function<void()> on_event, bool keeps_alive, int events = UV_READABLE) {
    watch_ = Watch::open(Environment::of(this->Env()), fd_.get(), std::move(on_event), events);
    if (watch_ != nullptr) watch_->ref(keeps_alive);
    return watch_ != nullptr;
  }

  void unwatch() {
    if (watch_ != nullptr) watch_->close();
    watch_ = nullptr;
  }

  void stop() final {
    unwatch();
    fd_.reset();
  }

  UniqueFd fd_;

 private:
  Watch* watch_ = nullptr;
};

}  // namespace cloister
