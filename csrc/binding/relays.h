#pragma once

#include <napi.h>
#include <uv.h>

#include <memory>
#include <mutex>
#include <vector>

#include "../core/pump.h"

namespace cloister {

// What JavaScript sees of a pump: new Relays(onEnded), add(one, other, readOfOne, readOfOther, paceOfOne, paceOfOther).
class Relays : public Napi::ObjectWrap<Relays> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit Relays(const Napi::CallbackInfo& info);

  void end();

 private:
  Napi::Value add(const Napi::CallbackInfo& info);
  void on_ended();

  Napi::FunctionReference callback_;
  std::unique_ptr<Napi::AsyncContext> context_;
  uv_async_t* async_ = nullptr;
  uint64_t last_ = 0;
  std::mutex mutex_;  // guards over_
  std::vector<uint64_t> over_;
  Pump pump_;
};

// pace(bytesPerSecond), which several relays and others may share; spend(pace, bytes); paceWait(pace), in milliseconds.
void define_pace(Napi::Env env, Napi::Object exports);

}  // namespace cloister
