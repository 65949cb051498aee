#include "watch.h"

#include "environment.h"

namespace cloister {

Watch* Watch::open(Environment& environment, int fd, std::function<void()> callback, int events) {
  Watch* watch = new Watch;
  watch->environment_ = &environment;
  watch->callback_ = std::move(callback);
  watch->handle_.data = watch;
  if (uv_poll_init(environment.loop(), &watch->handle_, fd) != 0) {
    delete watch;
    return nullptr;
  }
  environment.opened();
  uv_poll_start(&watch->handle_, events, [](uv_poll_t* handle, int, int) {
    // A copy: the callback may close this watch.
    const std::function<void()> run = static_cast<Watch*>(handle->data)->callback_;
    if (run) run();
  });
  return watch;
}

void Watch::close() {
  callback_ = nullptr;
  uv_close(reinterpret_cast<uv_handle_t*>(&handle_), [](uv_handle_t* handle) {
    Watch* watch = static_cast<Watch*>(handle->data);
    Environment* environment = watch->environment_;
    delete watch;
    environment->closed();
  });
}

void Watch::ref(bool on) {
  uv_handle_t* handle = reinterpret_cast<uv_handle_t*>(&handle_);
  if (on)
    uv_ref(handle);
  else
    uv_unref(handle);
}

}  // namespace cloister
