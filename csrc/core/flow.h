#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "pace.h"
#include "pipe_pool.h"

namespace cloister {

// One direction between two stream sockets, which are non-blocking and somebody else's. Bytes go through a pipe by splice(2): pages change
// hands, and nothing is copied. It is filled only when it is empty, so what the receiver does not take stays with the sender.
class Flow {
 public:
  enum class State {
    waiting,  // for either socket
    more,     // its turn is over, and there is more to do
    paced,    // for its pace
    done,     // the end has been handed on
    failed,   // one of them is broken
  };

  // `pace`: none, or that of all that goes the same way.
  Flow(int from, int to, std::vector<uint8_t> first, std::shared_ptr<Pace> pace = nullptr)
      : from_(from), to_(to), kept_(std::move(first)), pace_(std::move(pace)) {
    if (pace_) pace_->take(kept_.size());
  }

  State run(PipePool& pipes);
  // Urgent data has come. splice(2) stops before it, and says that there is nothing (tcp_read_sock), or, once the sender has ended, that
  // this is the end; recv(2) passes over it.
  void has_urgent() { splices_ = false; }
  // Nanoseconds, of one that is paced.
  uint64_t wait() const { return pace_->wait(); }
  bool is_done() const { return done_; }
  bool holds() const { return piped_ > 0 || !kept_.empty(); }
  void drop(PipePool& pipes);

 private:
  State move(PipePool& pipes);
  int drain();  // 0, or an errno
  ssize_t fill(PipePool& pipes, size_t most);

  int from_, to_;
  Pipe pipe_;
  size_t piped_ = 0;           // bytes in it
  std::vector<uint8_t> kept_;  // what was read otherwise, from sent_ on
  size_t sent_ = 0;
  std::shared_ptr<Pace> pace_;
  bool splices_ = true, ended_ = false, done_ = false;
};

}  // namespace cloister
