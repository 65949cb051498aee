#pragma once

#include <napi.h>

namespace cloister {

// closeDescriptors(fds) → a promise of their end
Napi::Value close_descriptors(const Napi::CallbackInfo& info);

}  // namespace cloister
