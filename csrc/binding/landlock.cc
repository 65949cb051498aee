#include "landlock.h"

#include "../sys/raw_syscall.h"

namespace cloister {

Napi::Value landlock_abi(const Napi::CallbackInfo& info) {
  constexpr long kVersion = 1;  // LANDLOCK_CREATE_RULESET_VERSION
  return Napi::Number::New(info.Env(), static_cast<double>(raw_syscall(SYS_landlock_create_ruleset, 0, 0, kVersion)));
}

}  // namespace cloister
