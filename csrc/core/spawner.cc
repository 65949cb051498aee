#include "spawner.h"

#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/prctl.h>

namespace cloister {

int Spawner::submit(Launch* launch) {
  {
    std::lock_guard lock(mutex_);
    if (!started_) {
      if (const int error = pthread_create(&thread_, nullptr, main, this)) return error;
      started_ = true;
    }
    queue_.push_back(launch);
  }
  wake_.notify_one();
  return 0;
}

void Spawner::stop() {
  {
    std::lock_guard lock(mutex_);
    if (!started_) return;
    stopping_ = true;
  }
  wake_.notify_one();
  pthread_join(thread_, nullptr);
  started_ = false;
}

void* Spawner::main(void* self) {
  // Signals stay with Node's threads, and a child starts with all of them blocked.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  (void)prctl(PR_SET_NAME, "cloister");
  // A umask and working directory of this thread's own: steps create files with the modes that they name.
  if (unshare(CLONE_FS) == 0) (void)umask(0);
  static_cast<Spawner*>(self)->life_line_.take();
  static_cast<Spawner*>(self)->loop();
  return nullptr;
}

void Spawner::loop() {
  for (;;) {
    Launch* launch;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      launch = queue_.front();
      queue_.pop_front();
    }
    launch->run(life_line_.word());
  }
}

}  // namespace cloister
