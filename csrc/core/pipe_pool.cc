#include "pipe_pool.h"

#include <fcntl.h>

#include <utility>

namespace cloister {

namespace {

// What is kept between two bursts: a turn takes two at the most. Descriptors may be scarce.
constexpr size_t kMostIdle = 4;

}  // namespace

Pipe PipePool::take() {
  if (!idle_.empty()) {
    Pipe pipe = std::move(idle_.back());
    idle_.pop_back();
    return pipe;
  }
  int fds[2];
  if (made_ >= most_ || pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) return {};
  made_++;
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

void PipePool::give_back(Pipe pipe) {
  if (idle_.size() < kMostIdle)
    idle_.push_back(std::move(pipe));
  else
    discard(std::move(pipe));
}

void PipePool::discard(Pipe pipe) {
  if (pipe) made_--;
}

void PipePool::clear() {
  made_ -= idle_.size();
  idle_.clear();
}

}  // namespace cloister
