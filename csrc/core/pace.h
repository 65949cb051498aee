#pragma once

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace cloister {

inline uint64_t nanoseconds_now() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// A bucket of tokens, one for each byte, that fills at a rate: whoever takes from it goes no faster, all together. What tc-tbf(8) does for a
// link, for what no link carries.
class Pace {
 public:
  // As much at once as lib/network/bandwidth.ts has it for links.
  explicit Pace(double bytes_per_second)
      : rate_(bytes_per_second), burst_(std::max(3200.0, bytes_per_second / 200)), tokens_(burst_) {}

  // Bytes that may go now; 0 until they are worth a call.
  size_t allowance() {
    std::lock_guard lock(mutex_);
    fill();
    return tokens_ >= least() ? static_cast<size_t>(tokens_) : 0;
  }

  // Also more than there are: then others wait the longer.
  void take(size_t bytes) {
    std::lock_guard lock(mutex_);
    fill();
    tokens_ -= static_cast<double>(bytes);
  }

  // Nanoseconds until there is an allowance.
  uint64_t wait() {
    std::lock_guard lock(mutex_);
    fill();
    return tokens_ >= least() ? 0 : static_cast<uint64_t>((least() - tokens_) / rate_ * 1e9) + 1;
  }

 private:
  double least() const { return burst_ / 4; }
  void fill() {
    const uint64_t now = nanoseconds_now();
    tokens_ = std::min(burst_, tokens_ + rate_ * static_cast<double>(now - filled_) / 1e9);
    filled_ = now;
  }

  const double rate_, burst_;
  std::mutex mutex_;
  double tokens_;
  uint64_t filled_ = nanoseconds_now();
};

}  // namespace cloister
