#pragma once

#include <napi.h>

namespace cloister {

// landlockAbi(): the version of the kernel's Landlock, or a negative errno.
Napi::Value landlock_abi(const Napi::CallbackInfo& info);

}  // namespace cloister
