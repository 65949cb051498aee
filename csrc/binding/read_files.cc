#include "read_files.h"

#include <string>
#include <vector>

#include "../core/file_text.h"

namespace cloister {

namespace {

// All files in one visit to libuv's pool: Node's own fs.promises.readFile makes four for each.
class Reading : public Napi::AsyncWorker {
 public:
  Reading(Napi::Env env, std::vector<FileText> files)
      : Napi::AsyncWorker(env, "cloister:readFiles"), deferred_(env), files_(std::move(files)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    for (FileText& file : files_) read_whole(file);
  }

  void OnOK() override {
    Napi::Array result = Napi::Array::New(Env(), files_.size());
    for (uint32_t i = 0; i < files_.size(); i++) {
      const FileText& file = files_[i];
      if (file.error != 0)
        result[i] = Napi::Number::New(Env(), file.error);
      else
        result[i] = Napi::String::New(Env(), file.text);
    }
    deferred_.Resolve(result);
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  std::vector<FileText> files_;
};

}  // namespace

Napi::Value read_files(const Napi::CallbackInfo& info) {
  const Napi::Array list = info[0].As<Napi::Array>();
  std::vector<FileText> files(list.Length());
  for (uint32_t i = 0; i < list.Length(); i++) {
    const Napi::Value entry = list.Get(i);
    if (entry.IsNumber())
      files[i].fd = entry.As<Napi::Number>().Int32Value();
    else
      files[i].path = entry.As<Napi::String>().Utf8Value();
  }
  Reading* reading = new Reading(info.Env(), std::move(files));
  const Napi::Promise promise = reading->promise();
  reading->Queue();
  return promise;
}

}  // namespace cloister
