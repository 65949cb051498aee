// What JavaScript sees of the addon; types/native.d.ts is its contract.

#include <napi.h>

#include "binding/call_listener.h"
#include "binding/close_descriptors.h"
#include "binding/counter_files.h"
#include "binding/datagrams.h"
#include "binding/descriptors.h"
#include "binding/device_program.h"
#include "binding/environment.h"
#include "binding/files.h"
#include "binding/init_program.h"
#include "binding/landlock.h"
#include "binding/netlink.h"
#include "binding/plan_run.h"
#include "binding/process.h"
#include "binding/read_files.h"
#include "binding/relays.h"
#include "binding/watcher.h"
#include "child/plan.h"

namespace cloister {

static Napi::Value step_kinds(const Napi::CallbackInfo& info) {
  Napi::Object kinds = Napi::Object::New(info.Env());
  for (const StepShape& shape : kStepShapes) kinds.Set(shape.name, Napi::String::New(info.Env(), shape.signature));
  return kinds;
}

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  new Environment(env);
  exports.Set("Process", Process::define(env));
  exports.Set("runPlan", Napi::Function::New(env, PlanRun::start, "runPlan"));
  exports.Set("stepKinds", Napi::Function::New(env, step_kinds, "stepKinds"));
  exports.Set("initProgram", Napi::Function::New(env, init_program, "initProgram"));
  exports.Set("landlockAbi", Napi::Function::New(env, landlock_abi, "landlockAbi"));
  exports.Set("Watcher", Watcher::define(env));
  exports.Set("CallListener", CallListener::define(env));
  exports.Set("Datagrams", Datagrams::define(env));
  exports.Set("sendPacket", Napi::Function::New(env, send_packet, "sendPacket"));
  exports.Set("Relays", Relays::define(env));
  define_pace(env, exports);
  exports.Set("CounterFiles", CounterFiles::define(env));
  exports.Set("closeDescriptors", Napi::Function::New(env, close_descriptors, "closeDescriptors"));
  exports.Set("readFiles", Napi::Function::New(env, read_files, "readFiles"));
  exports.Set("netlinkExchange", Napi::Function::New(env, netlink_exchange, "netlinkExchange"));
  define_descriptors(env, exports);
  define_device_program(env, exports);
  define_files(env, exports);
  return exports;
}

NODE_API_MODULE(cloister, init)

}  // namespace cloister
