#pragma once

#include <napi.h>

namespace cloister {

// Small calls on descriptors that Node has no function for. Each returns a negative errno instead of throwing.
void define_descriptors(Napi::Env env, Napi::Object exports);

}  // namespace cloister
