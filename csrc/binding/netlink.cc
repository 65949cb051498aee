#include "netlink.h"

#include <errno.h>
#include <sys/socket.h>

#include <vector>

namespace cloister {

namespace {

// The kernel works in sendmsg(2) itself, with locks that the dismantling of other namespaces may hold (rtnl_lock), so not on the
// event loop. When that returns, the answers are there, or the first part of a dump is; taking a part makes it write the next
// (netlink_recvmsg in net/netlink/af_netlink.c). So what can be read without waiting is all there is.
class Exchange : public Napi::AsyncWorker {
 public:
  Exchange(Napi::Env env, int fd, std::vector<uint8_t> messages)
      : Napi::AsyncWorker(env, "cloister:netlink"), deferred_(env), fd_(fd), messages_(std::move(messages)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    if (send(fd_, messages_.data(), messages_.size(), 0) < 0) {
      error_ = -errno;
      return;
    }
    for (;;) {
      // Told before it is taken: parts of a dump are as long as the buffers that the kernel expects, 32 KiB and more.
      const ssize_t size = recv(fd_, nullptr, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) {
        if (errno != EAGAIN) error_ = -errno;
        return;
      }
      const size_t before = answers_.size();
      answers_.resize(before + static_cast<size_t>(size));
      const ssize_t taken = recv(fd_, answers_.data() + before, static_cast<size_t>(size), MSG_DONTWAIT);
      if (taken != size) {
        error_ = taken < 0 ? -errno : -EIO;
        return;
      }
      // Messages begin at multiples of 4 (NLMSG_ALIGN), the last of a datagram need not end there.
      answers_.resize((answers_.size() + 3) & ~size_t{3});
    }
  }

  void OnOK() override {
    if (error_ != 0)
      deferred_.Resolve(Napi::Number::New(Env(), error_));
    else
      deferred_.Resolve(Napi::Buffer<uint8_t>::Copy(Env(), answers_.data(), answers_.size()));
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  const int fd_;
  const std::vector<uint8_t> messages_;
  std::vector<uint8_t> answers_;
  int error_ = 0;
};

}  // namespace

Napi::Value netlink_exchange(const Napi::CallbackInfo& info) {
  const Napi::Uint8Array bytes = info[1].As<Napi::Uint8Array>();
  Exchange* exchange = new Exchange(info.Env(), info[0].As<Napi::Number>().Int32Value(),
                                    std::vector<uint8_t>(bytes.Data(), bytes.Data() + bytes.ByteLength()));
  const Napi::Promise promise = exchange->promise();
  exchange->Queue();
  return promise;
}

}  // namespace cloister
