#include "flow.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

namespace cloister {

namespace {

// Others want their turn, too.
constexpr size_t kTurn = 1 << 20;
// What a pipe of 16 slots can hold: on loopback a slot is up to 32 KiB of one allocation (skb_page_frag_refill).
constexpr size_t kPipeful = 16 << 15;
// Where there is no pipe. As much may be waiting for each direction.
constexpr size_t kPiece = 1 << 15;

template <typename Call>
ssize_t uninterrupted(Call call) {
  ssize_t result;
  do result = call();
  while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}

}  // namespace

Flow::State Flow::run(PipePool& pipes) {
  if (done_) return State::done;
  const State state = move(pipes);
  if (pipe_ && piped_ == 0) pipes.give_back(std::exchange(pipe_, {}));
  return state;
}

Flow::State Flow::move(PipePool& pipes) {
  for (size_t moved = 0;;) {
    if (const int error = drain()) return error == EAGAIN ? State::waiting : State::failed;
    if (ended_) {
      if (shutdown(to_, SHUT_WR) != 0) return State::failed;
      done_ = true;
      return State::done;
    }
    if (moved >= kTurn) return State::more;
    const size_t most = pace_ ? std::min(kPipeful, pace_->allowance()) : kPipeful;
    if (most == 0) return State::paced;
    const ssize_t size = fill(pipes, most);
    if (pace_ && size > 0) pace_->take(static_cast<size_t>(size));
    if (size < 0) return size == -EAGAIN ? State::waiting : State::failed;
    if (size == 0) ended_ = true;
    moved += static_cast<size_t>(size);
  }
}

int Flow::drain() {
  while (sent_ < kept_.size()) {
    const ssize_t size = uninterrupted(
        [this] { return send(to_, kept_.data() + sent_, kept_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL); });
    if (size < 0) return static_cast<int>(-size);
    sent_ += static_cast<size_t>(size);
  }
  kept_ = {};
  sent_ = 0;
  while (piped_ > 0) {
    const ssize_t size = uninterrupted(
        [this] { return splice(pipe_.read.get(), nullptr, to_, nullptr, piped_, SPLICE_F_MOVE | SPLICE_F_NONBLOCK); });
    if (size < 0) return static_cast<int>(-size);
    piped_ -= static_cast<size_t>(size);
  }
  return 0;
}

ssize_t Flow::fill(PipePool& pipes, size_t most) {
  if (splices_ && !pipe_) pipe_ = pipes.take();
  if (splices_ && pipe_) {
    const ssize_t size = uninterrupted([this, most] {
      return splice(from_, nullptr, pipe_.write.get(), nullptr, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    });
    if (size > 0) piped_ = static_cast<size_t>(size);
    // The end, if it is one: has_urgent. Or a kernel, or a filter of system calls, that has no splice(2) for this.
    const bool doubtful = size == 0 || size == -EINVAL || size == -ENOSYS || size == -EPERM;
    if (!doubtful) return size;
    splices_ = false;
  }
  uint8_t piece[kPiece];
  const ssize_t size = uninterrupted([&] { return recv(from_, piece, std::min(sizeof(piece), most), MSG_DONTWAIT); });
  if (size > 0) kept_.assign(piece, piece + size);
  return size;
}

void Flow::drop(PipePool& pipes) {
  if (pipe_) pipes.discard(std::exchange(pipe_, {}));
  piped_ = 0;
  kept_ = {};
}

}  // namespace cloister
