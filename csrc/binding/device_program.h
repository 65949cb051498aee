#pragma once

#include <napi.h>

namespace cloister {

void define_device_program(Napi::Env env, Napi::Object exports);

}  // namespace cloister
