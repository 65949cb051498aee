#pragma once

#include <uv.h>

#include <functional>

namespace cloister {

class Environment;

// A descriptor watched in the environment's loop. close() must come before the descriptor is closed; the
// callback does not run after it.
class Watch {
 public:
  // `events`: UV_READABLE, UV_PRIORITIZED.
  static Watch* open(Environment& environment, int fd, std::function<void()> callback, int events = UV_READABLE);
  void close();
  void ref(bool on);

 private:
  Environment* environment_ = nullptr;
  uv_poll_t handle_;
  std::function<void()> callback_;
};

}  // namespace cloister
