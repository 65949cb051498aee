#include "watcher.h"

#include <errno.h>
#include <unistd.h>

#include "environment.h"

namespace cloister {

Napi::Function Watcher::define(Napi::Env env) {
  return DefineClass(env, "Watcher",
                     {InstanceMethod("text", &Watcher::text), InstanceMethod("close", &Watcher::close)});
}

Watcher::Watcher(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Watcher>(info) {
  Environment& environment = Environment::of(info.Env());
  fd_.reset(info[0].As<Napi::Number>().Int32Value());
  environment.disown(fd_.get());
  callback_ = Napi::Persistent(info[2].As<Napi::Function>());
  context_ = std::make_shared<Napi::AsyncContext>(info.Env(), "cloister:watcher", info.This().As<Napi::Object>());
  const int events = info[1].As<Napi::Boolean>().Value() ? UV_PRIORITIZED : UV_READABLE;
  watch_ = Watch::open(environment, fd_.get(), [this] { on_event(); }, events);
  if (watch_ == nullptr) {
    Napi::Error::New(info.Env(), "cloister: the event loop refuses this file").ThrowAsJavaScriptException();
    return;
  }
  watch_->ref(info.Length() > 3 && info[3].ToBoolean().Value());
  environment.add(this);
  Ref();  // until end()
}

void Watcher::on_event() {
  Napi::Env env = Env();
  Napi::HandleScope scope(env);
  const Napi::Value text = read();
  // The callback may close this watcher.
  const std::shared_ptr<Napi::AsyncContext> context = context_;
  callback_.MakeCallback(Value(), {text}, *context);
  if (env.IsExceptionPending()) napi_fatal_exception(env, env.GetAndClearPendingException().Value());
}

Napi::Value Watcher::read() {
  char buffer[4096];
  ssize_t size = pread(fd_.get(), buffer, sizeof(buffer), 0);
  if (size < 0 && errno == ESPIPE) size = ::read(fd_.get(), buffer, sizeof(buffer));
  if (size >= 0) return Napi::String::New(Env(), buffer, static_cast<size_t>(size));
  if (errno == EAGAIN) return Napi::String::New(Env(), "");
  // The group is gone (ENODEV), and poll(2) would say so for ever (kernfs_fop_poll).
  const Napi::Value gone = Env().Undefined();
  if (watch_ != nullptr) watch_->close();
  watch_ = nullptr;
  return gone;
}

Napi::Value Watcher::text(const Napi::CallbackInfo& info) { return fd_ ? read() : info.Env().Undefined(); }

Napi::Value Watcher::close(const Napi::CallbackInfo& info) {
  end();
  return info.Env().Undefined();
}

void Watcher::end() {
  if (!fd_) return;
  if (watch_ != nullptr) watch_->close();
  watch_ = nullptr;
  fd_.reset();
  Environment::of(Env()).remove(this);
  callback_.Reset();
  context_.reset();
  Unref();
}

}  // namespace cloister
