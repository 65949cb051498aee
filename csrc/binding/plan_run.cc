#include "plan_run.h"

#include "environment.h"

namespace cloister {

Napi::Value failure_of(Napi::Env env, Launch& launch) {
  const Report& report = launch.shared().report;
  const int error = __atomic_load_n(&report.error, __ATOMIC_ACQUIRE);
  if (error == 0) return env.Undefined();
  Napi::Object failure = Napi::Object::New(env);
  failure["phase"] = Napi::Number::New(env, report.phase);
  failure["step"] = Napi::Number::New(env, report.step);
  failure["errno"] = Napi::Number::New(env, -error);
  failure["candidate"] = Napi::Number::New(env, report.candidate);
  failure["head"] = Napi::Buffer<uint8_t>::Copy(env, report.head, report.head_size);
  return failure;
}

Napi::Array take_kept(Napi::Env env, Launch& launch) {
  Napi::Array kept = Napi::Array::New(env);
  uint32_t n = 0;
  for (uint32_t i = 0; i < kMaxSlots; i++) {
    int32_t& fd = launch.shared().slots[i];
    if (fd < 0 || !keeps(launch.header(), i)) continue;
    kept[n++] = Napi::Number::New(env, i);
    kept[n++] = Napi::Number::New(env, Environment::of(env).own(fd));
    fd = -1;
  }
  return kept;
}

Launch* launch_from(const Napi::CallbackInfo& info) {
  Napi::Uint8Array plan = info[0].As<Napi::Uint8Array>();
  Napi::Int32Array slots = info[1].As<Napi::Int32Array>();
  for (size_t i = 0; i < slots.ElementLength(); i++) Environment::of(info.Env()).disown(slots[i]);
  const char* reason = nullptr;
  Launch* launch = Launch::create(plan.Data(), plan.ByteLength(), slots.Data(), slots.ElementLength(), &reason);
  if (launch == nullptr) {
    for (size_t i = 0; i < slots.ElementLength(); i++) UniqueFd(slots[i]).reset();
    Napi::Error::New(info.Env(), std::string("cloister: ") + reason).ThrowAsJavaScriptException();
  }
  return launch;
}

Napi::Value PlanRun::start(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Launch* launch = launch_from(info);
  if (launch == nullptr) return env.Undefined();
  PlanRun* run = new PlanRun(env, launch);
  Environment& environment = Environment::of(env);
  launch->done = [run, &environment] { environment.finished(run); };
  const Napi::Promise promise = run->deferred_.Promise();
  if (const int error = environment.begin(run)) {
    delete run;
    Napi::Error::New(env, std::string("cloister: no thread: ") + uv_err_name(error)).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  return promise;
}

void PlanRun::settle(bool discard) {
  std::unique_ptr<PlanRun> self(this);
  if (discard) {
    for (int32_t& fd : launch_->shared().slots) UniqueFd(std::exchange(fd, -1)).reset();
    return;
  }
  Napi::HandleScope scope(env_);
  // A callback scope, so that the promise's reactions run now and not at the loop's next event.
  Napi::AsyncContext context(env_, "cloister:plan");
  Napi::CallbackScope callback(env_, context);
  const Napi::Value failure = failure_of(env_, *launch_);
  const Napi::Array kept = take_kept(env_, *launch_);
  if (failure.IsUndefined()) {
    const Report& report = launch_->shared().report;
    Napi::Object result = Napi::Object::New(env_);
    result["kept"] = kept;
    result["head"] = Napi::Buffer<uint8_t>::Copy(env_, report.head, report.head_size);
    deferred_.Resolve(result);
    return;
  }
  for (uint32_t i = 1; i < kept.Length(); i += 2) {
    const int fd = kept.Get(i).As<Napi::Number>().Int32Value();
    Environment::of(env_).disown(fd);
    UniqueFd(fd).reset();
  }
  deferred_.Reject(failure);
}

}  // namespace cloister
