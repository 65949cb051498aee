#pragma once

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "launch.h"
#include "life_line.h"

namespace cloister {

// The one thread of an environment that runs plans, so that the event loop never waits for a clone. It lives as long as
// the environment: PR_SET_PDEATHSIG fires when the *thread* that cloned ends.
class Spawner {
 public:
  Spawner() = default;
  ~Spawner() { stop(); }

  // 0 or an errno. The thread starts with the first launch.
  int submit(Launch* launch);  // the caller keeps it alive until `done`, or the report pipe's end
  void stop();                 // runs what is queued, then joins

 private:
  static void* main(void* self);
  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Launch*> queue_;
  bool started_ = false;
  bool stopping_ = false;
  pthread_t thread_{};
  LifeLine life_line_;
};

}  // namespace cloister
