#pragma once

#include <napi.h>

namespace cloister {

// netlinkExchange(fd, messages) → a promise of all answers' bytes, or a negative errno
Napi::Value netlink_exchange(const Napi::CallbackInfo& info);

}  // namespace cloister
