#pragma once

#include <mutex>
#include <vector>

#include "../core/pump.h"
#include "event_source.h"

namespace cloister {

// What JavaScript sees of a pump: new Relays(onEnded), add(one, other, readOfOne, readOfOther, paceOfOne, paceOfOther).
class Relays : public EventSource<Relays> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit Relays(const Napi::CallbackInfo& info);

 private:
  Napi::Value add(const Napi::CallbackInfo& info);
  void on_ended();
  void stop() override;

  uv_async_t* async_ = nullptr;
  uint64_t last_ = 0;
  std::mutex mutex_;  // guards over_
  std::vector<uint64_t> over_;
  Pump pump_;
};

// pace(bytesPerSecond), which several relays and others may share; spend(pace, bytes); paceWait(pace), in milliseconds.
void define_pace(Napi::Env env, Napi::Object exports);

}  // namespace cloister
