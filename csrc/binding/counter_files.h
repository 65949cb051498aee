#pragma once

#include <napi.h>

#include <memory>
#include <string>
#include <vector>

#include "../core/counter_set.h"

namespace cloister {

// CounterFiles(paths, keys, keep): the same files, read again and again. What is wanted is said once, and what is found is put into arrays
// that are there already: the event loop pays for each string and each object that crosses over here.
class CounterFiles : public Napi::ObjectWrap<CounterFiles> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit CounterFiles(const Napi::CallbackInfo& info);

 private:
  friend class Counting;

  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  // Shared with the readings that are under way.
  std::shared_ptr<CounterSet> files_;
  Napi::Reference<Napi::Float64Array> numbers_;
  Napi::Reference<Napi::Array> texts_;
  // Those of `texts_`: a text that is as it was is not made a string again.
  std::vector<std::string> last_texts_;
};

}  // namespace cloister
