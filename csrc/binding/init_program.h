#pragma once

#include <napi.h>

namespace cloister {

// initProgram(): a descriptor of the sealed init, or a negative errno.
Napi::Value init_program(const Napi::CallbackInfo& info);

}  // namespace cloister
