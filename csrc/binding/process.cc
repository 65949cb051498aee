#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <mutex>

#include "../sys/raw_syscall.h"
#include "environment.h"
#include "plan_run.h"

namespace cloister {

namespace {

#ifndef P_PIDFD
constexpr int P_PIDFD = 3;
#endif

// A credential change of a child that still shares our memory clears *our* dumpable flag (commit_creds in kernel/cred.c),
// and with it an ordinary user's right to /proc/self. It is put back when no child shares our memory any more: before, whoever
// is inside with such a child's ids could open our memory.
std::mutex dumpable_mutex;  // environments have threads of their own
int on_their_way = 0;
int dumpable = 1;

void launch_begins() {
  std::lock_guard lock(dumpable_mutex);
  if (on_their_way++ == 0) dumpable = prctl(PR_GET_DUMPABLE);
}

void launch_ends() {
  std::lock_guard lock(dumpable_mutex);
  if (--on_their_way > 0) return;
  // 2 ("suidsafe") can only be had by the sysctl, not set.
  if (prctl(PR_GET_DUMPABLE) != dumpable && dumpable != 2) (void)prctl(PR_SET_DUMPABLE, dumpable);
}

long wait_for(int pidfd, siginfo_t* info, int options, struct rusage* usage) {
  long result;
  do {
    result = raw_syscall(SYS_waitid, P_PIDFD, pidfd, reinterpret_cast<long>(info), WEXITED | __WALL | options,
                         reinterpret_cast<long>(usage));
  } while (result == -EINTR);
  return result;
}

}  // namespace

Napi::Function Process::define(Napi::Env env) {
  return DefineClass(env, "Process",
                     {InstanceMethod("signal", &Process::signal), InstanceMethod("cancel", &Process::cancel),
                      InstanceMethod("setRef", &Process::set_ref), InstanceMethod("pidfd", &Process::pidfd)});
}

Process::Process(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<Process>(info), environment_(Environment::of(info.Env())) {
  launch_.reset(launch_from(info));
  report_.reset(info[2].As<Napi::Array>().Get(0u).As<Napi::Number>().Int32Value());
  UniqueFd low_end(info[2].As<Napi::Array>().Get(1u).As<Napi::Number>().Int32Value());
  // Above all that the program will have: nothing that is put in its place may end the pipe before exec does.
  UniqueFd write_end(fcntl(low_end.get(), F_DUPFD_CLOEXEC, 64));
  environment_.disown(report_.get());
  environment_.disown(low_end.get());
  if (!write_end) write_end = std::move(low_end);
  if (!launch_) return;
  detached_ = info[3].As<Napi::Boolean>().Value();
  on_start_ = Napi::Persistent(info[4].As<Napi::Function>());
  on_exit_ = Napi::Persistent(info[5].As<Napi::Function>());
  context_ = std::make_unique<Napi::AsyncContext>(info.Env(), "cloister:process", info.This().As<Napi::Object>());
  launch_->report = std::move(write_end);
  watch_ = Watch::open(environment_, report_.get(), [this] { on_report(); });
  if (watch_ == nullptr) {
    Napi::Error::New(info.Env(), "cloister: the event loop refuses the report pipe").ThrowAsJavaScriptException();
    return;
  }
  environment_.add(this);
  Ref();  // until end()
  launch_begins();
  if (const int error = environment_.spawner().submit(launch_.get())) {
    launch_->shared().report.error = error;
    launch_->shared().report.phase = static_cast<uint32_t>(Phase::clone_child);
    launch_->report.reset();
  }
}

void Process::on_report() {
  watch_->close();
  watch_ = nullptr;
  report_.reset();
  launch_ends();
  const std::unique_ptr<Launch> launch = std::move(launch_);
  pidfd_ = launch->take_pidfd();
  const bool started =
      __atomic_load_n(&launch->shared().state, __ATOMIC_ACQUIRE) == static_cast<uint32_t>(ChildState::executing);
  Napi::Env env = Env();
  Napi::HandleScope scope(env);
  const Napi::Value failure = failure_of(env, *launch);
  const Napi::Array kept = take_kept(env, *launch);
  if (pidfd_) {
    watch_ = Watch::open(environment_, pidfd_.get(), [this] { on_exit(); });
    if (watch_ != nullptr && !referenced_) watch_->ref(false);
  }
  const Napi::Value pid = Napi::Number::New(env, launch->shared().pid);
  const bool over = !pidfd_;
  call(on_start_, {failure, Napi::Boolean::New(env, started), pid, kept});
  if (over) end();
}

void Process::on_exit() {
  siginfo_t status = {};
  struct rusage usage = {};
  const long result = wait_for(pidfd_.get(), &status, WNOHANG, &usage);
  if (result == 0 && status.si_pid == 0) return;
  Napi::Env env = Env();
  Napi::HandleScope scope(env);
  Napi::Value code = env.Null();
  int signal = 0;
  // ECHILD: somebody else in this process has waited for any child. Then nobody can say how it ended.
  if (result == 0) {
    if (status.si_code == CLD_EXITED)
      code = Napi::Number::New(env, status.si_status);
    else
      signal = status.si_status;
  }
  Napi::Array numbers = Napi::Array::New(env);
  const auto milliseconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_usec) / 1e3;
  };
  numbers[0u] = Napi::Number::New(env, milliseconds(usage.ru_utime));
  numbers[1u] = Napi::Number::New(env, milliseconds(usage.ru_stime));
  numbers[2u] = Napi::Number::New(env, static_cast<double>(usage.ru_maxrss) * 1024);
  watch_->close();
  watch_ = nullptr;
  pidfd_.reset();
  call(on_exit_, {code, Napi::Number::New(env, signal), numbers});
  end();
}

void Process::call(Napi::FunctionReference& callback, const std::vector<napi_value>& arguments) {
  Napi::Env env = Env();
  Napi::HandleScope scope(env);
  callback.MakeCallback(Value(), arguments, *context_);
  // What a listener throws is the program's business, as with any of Node's own callbacks.
  if (env.IsExceptionPending()) napi_fatal_exception(env, env.GetAndClearPendingException().Value());
}

void Process::end() {
  environment_.remove(this);
  on_start_.Reset();
  on_exit_.Reset();
  context_.reset();
  Unref();
}

Napi::Value Process::signal(const Napi::CallbackInfo& info) {
  const int number = info[0].As<Napi::Number>().Int32Value();
  long result = -ESRCH;
  if (launch_)
    result = launch_->signal(number);
  else if (pidfd_)
    result = raw_syscall(SYS_pidfd_send_signal, pidfd_.get(), number, 0, 0);
  return Napi::Number::New(info.Env(), static_cast<double>(result));
}

Napi::Value Process::cancel(const Napi::CallbackInfo& info) {
  if (launch_) launch_->cancel();
  return info.Env().Undefined();
}

Napi::Value Process::set_ref(const Napi::CallbackInfo& info) {
  referenced_ = info[0].As<Napi::Boolean>().Value();
  if (watch_ != nullptr) watch_->ref(referenced_);
  return info.Env().Undefined();
}

Napi::Value Process::pidfd(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), pidfd_ ? pidfd_.get() : -1);
}

void Process::kill_for_teardown() {
  if (detached_ && !launch_) return;
  if (launch_)
    launch_->cancel();
  else if (pidfd_)
    raw_syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, 0, 0);
}

void Process::end_for_teardown() {
  if (watch_ != nullptr) watch_->close();
  watch_ = nullptr;
  if (launch_) {
    launch_ends();
    pidfd_ = launch_->take_pidfd();
    for (int32_t& fd : launch_->shared().slots) UniqueFd(std::exchange(fd, -1)).reset();
    launch_.reset();
  } else if (detached_) {
    pidfd_.reset();
  }
  // Killed above, so this waits for the kernel only; the process may live on when only a worker ends, and would keep zombies.
  // By poll(2): libuv has made the descriptor non-blocking, and for such a one waitid(2) does not wait.
  if (pidfd_) {
    struct pollfd dead = {pidfd_.get(), POLLIN, 0};
    while (poll(&dead, 1, -1) < 0 && errno == EINTR) {
    }
    (void)wait_for(pidfd_.get(), nullptr, WNOHANG, nullptr);
  }
  pidfd_.reset();
  end();
}

}  // namespace cloister
