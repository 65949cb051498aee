#include "environment.h"

#include "plan_run.h"
#include "process.h"

namespace cloister {

Environment& Environment::of(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<Environment*>(data);
}

Environment::Environment(napi_env env) : env_(env) {
  napi_get_uv_event_loop(env, &loop_);
  // Instance data is finalised after every cleanup hook, so `this` outlives teardown().
  napi_set_instance_data(
      env, this, [](napi_env, void* self, void*) { delete static_cast<Environment*>(self); }, nullptr);
  napi_add_async_cleanup_hook(env, teardown, this, &hook_);
}

void Environment::teardown(napi_async_cleanup_hook_handle, void* data) {
  Environment* self = static_cast<Environment*>(data);
  self->closing_ = true;
  self->opened();  // held until the end of this function
  for (Process* process : self->processes_) process->kill_for_teardown();
  self->spawner_.stop();
  self->helper_.stop();
  const std::set<Process*> left = self->processes_;
  for (Process* process : left) process->end_for_teardown();
  const std::set<Ending*> open = self->open_;
  for (Ending* each : open) each->end();
  self->drain();
  for (const int fd : self->fds_) UniqueFd(fd).reset();
  self->fds_.clear();
  if (self->async_ != nullptr) {
    uv_close(reinterpret_cast<uv_handle_t*>(self->async_), [](uv_handle_t* handle) {
      Environment* environment = static_cast<Environment*>(handle->data);
      delete reinterpret_cast<uv_async_t*>(handle);
      environment->closed();
    });
    self->async_ = nullptr;
  }
  self->closed();
}

void Environment::closed() {
  if (--handles_ == 0 && closing_) napi_remove_async_cleanup_hook(hook_);
}

int Environment::begin(PlanRun* run) {
  if (async_ == nullptr) {
    async_ = new uv_async_t;
    async_->data = this;
    uv_async_init(loop_, async_, [](uv_async_t* handle) { static_cast<Environment*>(handle->data)->drain(); });
    opened();
  }
  // The loop stays alive for a plan that runs, and only then.
  if (running_++ == 0) uv_ref(reinterpret_cast<uv_handle_t*>(async_));
  if (const int error = helper_.submit(run->launch())) {
    if (--running_ == 0) uv_unref(reinterpret_cast<uv_handle_t*>(async_));
    return -error;
  }
  return 0;
}

void Environment::finished(PlanRun* run) {
  std::lock_guard lock(mutex_);
  finished_.push_back(run);
  uv_async_send(async_);
}

void Environment::drain() {
  std::vector<PlanRun*> runs;
  {
    std::lock_guard lock(mutex_);
    runs.swap(finished_);
  }
  for (PlanRun* run : runs) {
    if (--running_ == 0) uv_unref(reinterpret_cast<uv_handle_t*>(async_));
    run->settle(closing_);
  }
}

}  // namespace cloister
