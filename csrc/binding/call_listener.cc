#include "call_listener.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstring>
#include <vector>

#include "descriptors.h"

namespace cloister {

namespace {

// Of 5.14, newer than the headers of some that build us.
#ifndef SECCOMP_ADDFD_FLAG_SEND
#define SECCOMP_ADDFD_FLAG_SEND 2
#endif

// Of 6.6: who answers goes to sleep soon, so the caller may be woken on the same processor.
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1
#endif

constexpr int kCallWords = 9;      // id; pid; architecture and number; six arguments
constexpr int kResponseWords = 3;  // id; value; errno, or the flag to go on
constexpr int kBatch = 64;         // then the loop has its turn

// Also after an answer was interrupted: the number of one that has gone is ENOENT, and none of our business any more.
int call(int fd, unsigned long request, void* argument) {
  int result;
  do result = ioctl(fd, request, argument);
  while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}

}  // namespace

Napi::Function CallListener::define(Napi::Env env) {
  return DefineClass(
      env, "CallListener",
      {InstanceMethod("answer", &CallListener::answer), InstanceMethod("addDescriptor", &CallListener::add_descriptor),
       InstanceMethod("memory", &CallListener::memory), InstanceMethod("close", &CallListener::close)});
}

// The process itself keeps the loop alive.
CallListener::CallListener(const Napi::CallbackInfo& info) : FileEvents(info, "cloister:calls", info[1]) {
  begin([this] { on_socket(); }, false);
}

void CallListener::on_socket() {
  const int listener = receive_sent_descriptor(fd_.get());
  if (listener == -EAGAIN) return;
  unwatch();
  fd_.reset(listener < 0 ? -1 : listener);
  if (listener < 0) return;
  (void)ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
  // Without a watch nobody will ever answer: closed, so that calls fail.
  if (!watch([this] { on_calls(); }, false)) fd_.reset();
}

void CallListener::on_calls() {
  Napi::Env env = Env();
  Napi::HandleScope scope(env);
  std::vector<uint64_t> words;
  words.reserve(static_cast<size_t>(kBatch) * kCallWords);
  bool over = false;
  for (int i = 0; i < kBatch; i++) {
    // SECCOMP_IOCTL_NOTIF_RECV waits where there is no call, even of a non-blocking descriptor.
    struct pollfd calls = {fd_.get(), POLLIN, 0};
    if (poll(&calls, 1, 0) <= 0) break;
    if (!(calls.revents & POLLIN)) {
      over = true;  // POLLHUP: nobody is left who has the filter
      break;
    }
    struct seccomp_notif request = {};
    // ENOENT: whoever called was killed meanwhile.
    if (call(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, &request) < 0) continue;
    words.push_back(request.id);
    words.push_back(request.pid);
    words.push_back(static_cast<uint64_t>(request.data.arch) << 32 | static_cast<uint32_t>(request.data.nr));
    for (const uint64_t argument : request.data.args) words.push_back(argument);
  }
  if (over) stop();
  if (words.empty()) return;
  Napi::BigUint64Array batch = Napi::BigUint64Array::New(env, words.size());
  memcpy(batch.Data(), words.data(), words.size() * sizeof(uint64_t));
  tell({batch});
}

// answer(responses): three words for each. Whoever is gone needs none.
Napi::Value CallListener::answer(const Napi::CallbackInfo& info) {
  const Napi::BigUint64Array words = info[0].As<Napi::BigUint64Array>();
  for (size_t i = 0; fd_ && i + kResponseWords <= words.ElementLength(); i += kResponseWords) {
    struct seccomp_notif_resp response = {};
    response.id = words[i];
    response.val = static_cast<int64_t>(words[i + 1]);
    if (words[i + 2] == UINT64_MAX)
      response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    else
      response.error = -static_cast<int32_t>(words[i + 2]);
    (void)call(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, &response);
  }
  return info.Env().Undefined();
}

// addDescriptor(id, fd, flags): the call returns a copy of this descriptor, put into the caller's table.
Napi::Value CallListener::add_descriptor(const Napi::CallbackInfo& info) {
  struct seccomp_notif_addfd add = {};
  bool lossless;
  add.id = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
  add.flags = SECCOMP_ADDFD_FLAG_SEND;
  add.srcfd = info[1].As<Napi::Number>().Uint32Value();
  add.newfd_flags = info[2].As<Napi::Number>().Uint32Value();
  const int result = fd_ ? call(fd_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &add) : -ENOENT;
  return Napi::Number::New(info.Env(), result);
}

// memory(id, pid, address, length): what can be read from there on; undefined if that is not, or not any more, the memory of who
// calls: a pid may be another's as soon as the caller is gone, so it is asked for afterwards.
Napi::Value CallListener::memory(const Napi::CallbackInfo& info) {
  bool lossless;
  uint64_t id = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
  const pid_t pid = info[1].As<Napi::Number>().Int32Value();
  const uint64_t address = info[2].As<Napi::BigInt>().Uint64Value(&lossless);
  const uint32_t length = info[3].As<Napi::Number>().Uint32Value();
  std::vector<uint8_t> bytes(length);
  struct iovec local = {bytes.data(), length};
  struct iovec remote = {reinterpret_cast<void*>(address), length};
  const ssize_t size = fd_ ? process_vm_readv(pid, &local, 1, &remote, 1, 0) : -1;
  if (size < 0 || call(fd_.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id) < 0) return info.Env().Undefined();
  return Napi::Buffer<uint8_t>::Copy(info.Env(), bytes.data(), static_cast<size_t>(size));
}

}  // namespace cloister
