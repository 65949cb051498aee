#include "relays.h"

#include <errno.h>

#include <utility>

namespace cloister {

namespace {

std::vector<uint8_t> bytes_of(const Napi::Value& value) {
  const Napi::Uint8Array array = value.As<Napi::Uint8Array>();
  return std::vector<uint8_t>(array.Data(), array.Data() + array.ByteLength());
}

using PaceHandle = Napi::External<std::shared_ptr<Pace>>;

std::shared_ptr<Pace> pace_of(const Napi::Value& value) {
  return value.IsExternal() ? *value.As<PaceHandle>().Data() : nullptr;
}

Napi::Value new_pace(const Napi::CallbackInfo& info) {
  return PaceHandle::New(info.Env(), new std::shared_ptr<Pace>(new Pace(info[0].As<Napi::Number>().DoubleValue())),
                         [](Napi::Env, std::shared_ptr<Pace>* pace) { delete pace; });
}

Napi::Value spend(const Napi::CallbackInfo& info) {
  pace_of(info[0])->take(static_cast<size_t>(info[1].As<Napi::Number>().Int64Value()));
  return info.Env().Undefined();
}

Napi::Value pace_wait(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(pace_of(info[0])->wait()) / 1e6);
}

}  // namespace

void define_pace(Napi::Env env, Napi::Object exports) {
  exports.Set("pace", Napi::Function::New(env, new_pace, "pace"));
  exports.Set("spend", Napi::Function::New(env, spend, "spend"));
  exports.Set("paceWait", Napi::Function::New(env, pace_wait, "paceWait"));
}

Napi::Function Relays::define(Napi::Env env) {
  return DefineClass(env, "Relays", {InstanceMethod("add", &Relays::add)});
}

Relays::Relays(const Napi::CallbackInfo& info)
    : EventSource(info, "cloister:relays", info[0]), pump_([this](uint64_t id) {
        std::lock_guard lock(mutex_);
        over_.push_back(id);
        uv_async_send(async_);
      }) {
  Environment& environment = Environment::of(info.Env());
  async_ = new uv_async_t;
  async_->data = this;
  uv_async_init(environment.loop(), async_, [](uv_async_t* handle) { static_cast<Relays*>(handle->data)->on_ended(); });
  // The loop waits for sandboxes, not for this.
  uv_unref(reinterpret_cast<uv_handle_t*>(async_));
  environment.opened();
  begin();
}

Napi::Value Relays::add(const Napi::CallbackInfo& info) {
  Environment& environment = Environment::of(info.Env());
  UniqueFd one(info[0].As<Napi::Number>().Int32Value()), other(info[1].As<Napi::Number>().Int32Value());
  environment.disown(one.get());
  environment.disown(other.get());
  if (async_ == nullptr) return Napi::Number::New(info.Env(), -ECANCELED);
  const int error = pump_.add(++last_, std::move(one), std::move(other), bytes_of(info[2]), bytes_of(info[3]),
                              pace_of(info[4]), pace_of(info[5]));
  return Napi::Number::New(info.Env(), error != 0 ? -error : static_cast<double>(last_));
}

void Relays::on_ended() {
  Napi::Env env = Env();
  Napi::HandleScope scope(env);
  std::vector<uint64_t> over;
  {
    std::lock_guard lock(mutex_);
    over.swap(over_);
  }
  if (over.empty()) return;
  Napi::Array numbers = Napi::Array::New(env, over.size());
  for (uint32_t i = 0; i < over.size(); i++) numbers[i] = Napi::Number::New(env, static_cast<double>(over[i]));
  tell({numbers});
}

void Relays::stop() {
  pump_.stop();
  async_->data = &Environment::of(Env());
  uv_close(reinterpret_cast<uv_handle_t*>(async_), [](uv_handle_t* handle) {
    Environment* environment = static_cast<Environment*>(handle->data);
    delete reinterpret_cast<uv_async_t*>(handle);
    environment->closed();
  });
  async_ = nullptr;
}

}  // namespace cloister
