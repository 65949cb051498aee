#pragma once

#include <napi.h>

namespace cloister {

// readFiles(files) → a promise of each one's text, or a negative errno
Napi::Value read_files(const Napi::CallbackInfo& info);

}  // namespace cloister
