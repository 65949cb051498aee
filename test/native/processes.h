#pragma once

// What a test of launches counts.

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sys/wait.h>

#include "check.h"
#include "core/launch.h"

namespace cloister {

inline int open_descriptors() {
  int count = 0;
  DIR* folder = opendir("/proc/self/fd");
  while (readdir(folder) != nullptr) count++;
  closedir(folder);
  return count;
}

inline bool has_children() { return waitid(P_ALL, 0, nullptr, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0; }

// Waits for the end of what the launch has started: the wait status' exit code, or minus the signal.
inline int reaped(Launch& launch) {
  const UniqueFd pidfd = launch.take_pidfd();
  CHECK(pidfd);
  struct pollfd watch = {pidfd.get(), POLLIN, 0};
  CHECK_EQ(poll(&watch, 1, 10000), 1);
  siginfo_t info = {};
  CHECK_EQ(waitid(static_cast<idtype_t>(3) /* P_PIDFD */, static_cast<id_t>(pidfd.get()), &info, WEXITED | __WALL), 0);
  return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
}

}  // namespace cloister
