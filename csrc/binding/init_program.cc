#include "init_program.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../sys/unique_fd.h"
#include "environment.h"

// csrc/init/embed.S
extern "C" const char cloister_init_start[], cloister_init_end[];

namespace cloister {

// A sealed memfd, never the host's node: /proc/PID/exe of a process inside must not lead to a program of the host
// (CVE-2019-5736).
Napi::Value init_program(const Napi::CallbackInfo& info) {
  UniqueFd fd(memfd_create("cloister-init", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const size_t size = static_cast<size_t>(cloister_init_end - cloister_init_start);
  if (!fd || write(fd.get(), cloister_init_start, size) != static_cast<ssize_t>(size) || fchmod(fd.get(), 0555) < 0 ||
      fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
    return Napi::Number::New(info.Env(), -errno);
  return Napi::Number::New(info.Env(), Environment::of(info.Env()).own(fd.release()));
}

}  // namespace cloister
