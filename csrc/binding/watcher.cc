#include "watcher.h"

#include <errno.h>
#include <unistd.h>

namespace cloister {

Napi::Function Watcher::define(Napi::Env env) {
  return DefineClass(env, "Watcher",
                     {InstanceMethod("text", &Watcher::text), InstanceMethod("close", &Watcher::close)});
}

Watcher::Watcher(const Napi::CallbackInfo& info) : FileEvents(info, "cloister:watcher", info[2]) {
  const int events = info[1].As<Napi::Boolean>().Value() ? UV_PRIORITIZED : UV_READABLE;
  begin([this] { on_event(); }, info.Length() > 3 && info[3].ToBoolean().Value(), events);
}

void Watcher::on_event() {
  Napi::HandleScope scope(Env());
  tell({read()});
}

Napi::Value Watcher::read() {
  char buffer[4096];
  ssize_t size = pread(fd_.get(), buffer, sizeof(buffer), 0);
  if (size < 0 && errno == ESPIPE) size = ::read(fd_.get(), buffer, sizeof(buffer));
  if (size >= 0) return Napi::String::New(Env(), buffer, static_cast<size_t>(size));
  if (errno == EAGAIN) return Napi::String::New(Env(), "");
  // The group is gone (ENODEV), and poll(2) would say so for ever (kernfs_fop_poll).
  unwatch();
  return Env().Undefined();
}

Napi::Value Watcher::text(const Napi::CallbackInfo& info) { return fd_ ? read() : info.Env().Undefined(); }

}  // namespace cloister
