#include "counter_files.h"

#include <utility>

#include "../core/counters.h"

namespace cloister {

namespace {

using Files = std::shared_ptr<const std::vector<CounterFile>>;

// The counters become numbers out there, too. As text they are 35 strings and some two hundred lines for each look at a group of v1.
class Counting : public Napi::AsyncWorker {
 public:
  Counting(Napi::Env env, Files files)
      : Napi::AsyncWorker(env, "cloister:counters"), deferred_(env), files_(std::move(files)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    for (const CounterFile& each : *files_) {
      FileText file = each.file;
      read_whole(file);
      if (!each.keys)
        texts_.push_back(std::move(file));
      else
        for (const std::string& key : *each.keys) numbers_.push_back(counter_in(file.text, key));
    }
  }

  void OnOK() override {
    Napi::Float64Array numbers = Napi::Float64Array::New(Env(), numbers_.size());
    std::copy(numbers_.begin(), numbers_.end(), numbers.Data());
    Napi::Array texts = Napi::Array::New(Env(), texts_.size());
    for (uint32_t i = 0; i < texts_.size(); i++)
      if (texts_[i].error == 0) texts[i] = Napi::String::New(Env(), texts_[i].text);
    Napi::Array result = Napi::Array::New(Env(), 2);
    result[0u] = numbers;
    result[1u] = texts;
    deferred_.Resolve(result);
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  Files files_;
  std::vector<double> numbers_;
  std::vector<FileText> texts_;
};

}  // namespace

Napi::Function CounterFiles::define(Napi::Env env) {
  return DefineClass(env, "CounterFiles", {InstanceMethod("read", &CounterFiles::read)});
}

CounterFiles::CounterFiles(const Napi::CallbackInfo& info) : Napi::ObjectWrap<CounterFiles>(info) {
  const Napi::Array list = info[0].As<Napi::Array>();
  const Napi::Array keys = info[1].As<Napi::Array>();
  std::vector<CounterFile> files(list.Length());
  for (uint32_t i = 0; i < list.Length(); i++) {
    const Napi::Value entry = list.Get(i);
    if (entry.IsNumber())
      files[i].file.fd = entry.As<Napi::Number>().Int32Value();
    else
      files[i].file.path = entry.As<Napi::String>().Utf8Value();
    if (!keys.Get(i).IsArray()) continue;
    const Napi::Array names = keys.Get(i).As<Napi::Array>();
    files[i].keys.emplace();
    for (uint32_t j = 0; j < names.Length(); j++) files[i].keys->push_back(names.Get(j).As<Napi::String>().Utf8Value());
  }
  files_ = std::make_shared<const std::vector<CounterFile>>(std::move(files));
}

Napi::Value CounterFiles::read(const Napi::CallbackInfo& info) {
  Counting* counting = new Counting(info.Env(), files_);
  const Napi::Promise promise = counting->promise();
  counting->Queue();
  return promise;
}

}  // namespace cloister
