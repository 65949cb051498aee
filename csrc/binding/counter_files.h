#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../core/file_text.h"

namespace cloister {

// A file, and the names of the counters in it; without names its text is wanted.
struct CounterFile {
  FileText file;
  std::optional<std::vector<std::string>> keys;
};

// CounterFiles(files, keys): the same files, read again and again. What is wanted is said once, for the event loop pays for each string that
// crosses over here.
class CounterFiles : public Napi::ObjectWrap<CounterFiles> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit CounterFiles(const Napi::CallbackInfo& info);

 private:
  Napi::Value read(const Napi::CallbackInfo& info);

  std::shared_ptr<const std::vector<CounterFile>> files_;
};

}  // namespace cloister
