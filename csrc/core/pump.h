#pragma once

#include <pthread.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "flow.h"

namespace cloister {

// Pairs of connected stream sockets, each pair as one connection: what comes from one goes to the other, no faster than that takes it;
// the end of one direction is handed on, and the other stays open; a reset is handed on as a reset. One thread carries all of them.
//
// io_uring, which would spare calls, is turned off for most (kernel.io_uring_disabled, filters of container engines), and a map of sockets
// in BPF, which would spare this thread, needs CAP_NET_ADMIN.
class Pump {
 public:
  // `ended`: in the pump's thread, both sockets have been closed. Not for those that stop() closes.
  explicit Pump(std::function<void(uint64_t id)> ended, size_t most_pipes = 256)
      : ended_(std::move(ended)), pipes_(most_pipes) {}
  ~Pump() { stop(); }

  // 0 or an errno: then both have been reset. `first`: what was read from one before, and belongs to the other. `pace`: of what
  // comes from it.
  int add(uint64_t id, UniqueFd one, UniqueFd other, std::vector<uint8_t> first_of_one,
          std::vector<uint8_t> first_of_other, std::shared_ptr<Pace> pace_of_one = nullptr,
          std::shared_ptr<Pace> pace_of_other = nullptr);
  void stop();  // closes all, and joins the thread

 private:
  struct Pair;
  struct End {
    Pair* pair;
    UniqueFd socket;
    Flow flow;            // what comes from it
    bool broken = false;  // there is an error to be read
  };
  struct Pair {
    uint64_t id;
    End ends[2];
    bool queued = false, gone = false;
  };

  int start();
  static void* main(void* self);
  void loop();
  bool take_added();  // false: stop
  void adopt(std::unique_ptr<Pair> pair);
  void queue(Pair& pair);
  void wait_for_pace(Pair& pair, uint64_t nanoseconds);
  int timeout();  // milliseconds, for epoll_wait
  void queue_paced();
  void run(Pair& pair);
  void break_off(Pair& pair);
  void end(Pair& pair);
  void end_all();

  const std::function<void(uint64_t id)> ended_;
  std::mutex mutex_;  // guards added_ and stopping_
  std::vector<std::unique_ptr<Pair>> added_;
  bool started_ = false, stopping_ = false;
  pthread_t thread_{};
  UniqueFd epoll_, wake_;
  // Of the thread.
  PipePool pipes_;
  std::unordered_map<uint64_t, std::unique_ptr<Pair>> pairs_;
  std::vector<Pair*> queue_;
  std::unordered_set<Pair*> paced_;
  uint64_t paced_until_ = UINT64_MAX;        // the first of them
  std::vector<std::unique_ptr<Pair>> gone_;  // events that were read together may still name them
};

}  // namespace cloister
