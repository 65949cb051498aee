#include "counter_files.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace cloister {

// The counters become numbers out there, too. As text they are 35 strings and some two hundred lines for each look at a group of v1.
class Counting : public Napi::AsyncWorker {
 public:
  // As the receiver of the callback the owner lives until the reading is over.
  Counting(CounterFiles& owner, Napi::Function make)
      : Napi::AsyncWorker(owner.Value(), make, "cloister:counters"),
        deferred_(owner.Env()),
        owner_(owner),
        files_(owner.files_) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override { look_ = files_->read(); }

  void OnOK() override {
    Napi::Float64Array numbers = owner_.numbers_.Value();
    std::copy(look_.numbers.begin(), look_.numbers.end(), numbers.Data() + 1);
    Napi::Array texts = owner_.texts_.Value();
    for (uint32_t i = 0; i < look_.texts.size(); i++) {
      FileText& file = look_.texts[i];
      if (file.error != 0)
        texts[i + 1] = Env().Undefined();
      else if (file.text != owner_.last_texts_[i] || !static_cast<Napi::Value>(texts[i + 1]).IsString())
        texts[i + 1] = Napi::String::New(Env(), file.text);
      owner_.last_texts_[i] = std::move(file.text);
    }
    const Napi::Value made = Callback().Call({numbers, texts});
    if (Env().IsExceptionPending())
      deferred_.Reject(Env().GetAndClearPendingException().Value());
    else
      deferred_.Resolve(made);
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  CounterFiles& owner_;
  std::shared_ptr<CounterSet> files_;
  CounterLook look_;
};

Napi::Function CounterFiles::define(Napi::Env env) {
  return DefineClass(env, "CounterFiles",
                     {InstanceMethod("read", &CounterFiles::read), InstanceMethod("close", &CounterFiles::close)});
}

CounterFiles::CounterFiles(const Napi::CallbackInfo& info) : Napi::ObjectWrap<CounterFiles>(info) {
  const Napi::Array paths = info[0].As<Napi::Array>();
  const Napi::Array keys = info[1].As<Napi::Array>();
  std::vector<CounterFile> files(paths.Length());
  // The first number and the first text are those that are not there.
  size_t numbers = 1;
  for (uint32_t i = 0; i < paths.Length(); i++) {
    files[i].path = paths.Get(i).As<Napi::String>().Utf8Value();
    if (!keys.Get(i).IsArray()) {
      last_texts_.emplace_back();
      continue;
    }
    const Napi::Array names = keys.Get(i).As<Napi::Array>();
    files[i].keys.emplace();
    for (uint32_t j = 0; j < names.Length(); j++) files[i].keys->push_back(names.Get(j).As<Napi::String>().Utf8Value());
    numbers += names.Length();
  }
  Napi::Float64Array places = Napi::Float64Array::New(info.Env(), numbers);
  std::fill_n(places.Data(), numbers, std::numeric_limits<double>::quiet_NaN());
  numbers_ = Napi::Persistent(places);
  Napi::Array texts = Napi::Array::New(info.Env(), last_texts_.size() + 1);
  for (uint32_t i = 0; i <= last_texts_.size(); i++) texts[i] = info.Env().Undefined();
  texts_ = Napi::Persistent(texts);
  files_ = std::make_shared<CounterSet>(std::move(files), info[2].As<Napi::Boolean>().Value());
}

Napi::Value CounterFiles::read(const Napi::CallbackInfo& info) {
  Counting* counting = new Counting(*this, info[0].As<Napi::Function>());
  const Napi::Promise promise = counting->promise();
  counting->Queue();
  return promise;
}

Napi::Value CounterFiles::close(const Napi::CallbackInfo& info) {
  files_.reset();
  return info.Env().Undefined();
}

}  // namespace cloister
