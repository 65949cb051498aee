#pragma once

#include <uv.h>

#include <functional>

namespace cloister {

class Environment;

// A descriptor watched for readability in the environment's loop. close() must come before the descriptor is closed; the
// callback does not run after it.
class Watch {
 public:
  static Watch* open(Environment& environment, int fd, std::function<void()> callback);
  void close();
  void ref(bool on);

 private:
  Environment* environment_ = nullptr;
  uv_poll_t handle_;
  std::function<void()> callback_;
};

}  // namespace cloister
