#pragma once

#include <napi.h>

namespace cloister {

// System calls on the entries of directories that strangers have filled: `exports.files`.
void define_files(Napi::Env env, Napi::Object exports);

}  // namespace cloister
