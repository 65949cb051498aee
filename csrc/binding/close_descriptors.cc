#include "close_descriptors.h"

#include <unistd.h>

#include <utility>
#include <vector>

#include "environment.h"

namespace cloister {

namespace {

// close(2) of the last descriptor of a mount takes the mount away, in the thread that calls it: with hundreds of layers that is milliseconds.
class Closing : public Napi::AsyncWorker {
 public:
  Closing(Napi::Env env, std::vector<int> fds)
      : Napi::AsyncWorker(env, "cloister:close"), deferred_(env), fds_(std::move(fds)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    for (const int fd : fds_) ::close(fd);
  }

  void OnOK() override { deferred_.Resolve(Env().Undefined()); }

 private:
  Napi::Promise::Deferred deferred_;
  std::vector<int> fds_;
};

}  // namespace

Napi::Value close_descriptors(const Napi::CallbackInfo& info) {
  const Napi::Array list = info[0].As<Napi::Array>();
  std::vector<int> fds;
  for (uint32_t i = 0; i < list.Length(); i++) {
    fds.push_back(list.Get(i).As<Napi::Number>().Int32Value());
    Environment::of(info.Env()).disown(fds.back());
  }
  Closing* closing = new Closing(info.Env(), std::move(fds));
  const Napi::Promise promise = closing->promise();
  closing->Queue();
  return promise;
}

}  // namespace cloister
