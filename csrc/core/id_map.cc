#include "id_map.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cstring>
#include <string>
#include <vector>

#include "../sys/unique_fd.h"

namespace cloister {

namespace {

int write_file(pid_t pid, const char* name, const char* text) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
  UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
  // A map is taken whole in the first write or not at all.
  if (!fd || write(fd.get(), text, strlen(text)) < 0) return errno;
  return 0;
}

// setuid helpers, for ranges that /etc/subuid grants to an ordinary user.
int run_helper(pid_t pid, const char* const* argv) {
  const std::string pid_text = std::to_string(pid);
  std::vector<char*> words = {const_cast<char*>(argv[0]), const_cast<char*>(pid_text.c_str())};
  for (int i = 1; argv[i] != nullptr; i++) words.push_back(const_cast<char*>(argv[i]));
  words.push_back(nullptr);
  char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  char* environment[] = {path, nullptr};
  pid_t helper;
  // This thread blocks all signals; the helper must not inherit that.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  const int error = posix_spawn(&helper, words[0], nullptr, &attributes, words.data(), environment);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return error;
  int status;
  while (waitpid(helper, &status, 0) < 0)
    if (errno != EINTR) return errno;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : EPERM;
}

const char* text_at(const uint8_t* plan, int64_t offset) { return reinterpret_cast<const char*>(plan + offset); }

}  // namespace

IdMapResult write_id_maps(pid_t pid, const PlanHeader& header, const uint8_t* plan) {
  int error = 0;
  if (header.oom_score_adj >= 0 && (error = write_file(pid, "oom_score_adj", text_at(plan, header.oom_score_adj))) != 0)
    return {Phase::oom_score_adj, error};
  if (header.map_helpers) {
    if ((error = run_helper(pid, reinterpret_cast<const char* const*>(plan + header.uid_map))) != 0)
      return {Phase::newuidmap, error};
    if ((error = run_helper(pid, reinterpret_cast<const char* const*>(plan + header.gid_map))) != 0)
      return {Phase::newgidmap, error};
    return {Phase::uid_map, 0};
  }
  if (header.uid_map >= 0 && (error = write_file(pid, "uid_map", text_at(plan, header.uid_map))) != 0)
    return {Phase::uid_map, error};
  if (header.gid_map >= 0 && (error = write_file(pid, "gid_map", text_at(plan, header.gid_map))) != 0)
    return {Phase::gid_map, error};
  return {Phase::uid_map, 0};
}

}  // namespace cloister
