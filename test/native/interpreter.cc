// run_steps() over plans of harmless calls. What would change this process runs in a fork.

#include "child/interpreter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "builder.h"
#include "check.h"
#include "core/plan_check.h"
#include "sys/raw_syscall.h"

using namespace cloister;

namespace {

// A plan, checked, with what it runs on; shared with forks.
struct Run {
  explicit Run(const Builder& builder) : plan(builder.encode()) {
    CHECK(check_plan(plan.data(), plan.size()) == nullptr);
    void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared = new (memory) Shared{};
    std::fill(slots, slots + kMaxSlots, -1);
  }
  ~Run() { munmap(shared, sizeof(Shared)); }

  int operator()() { return run_steps(plan.data(), 0, header_of(plan).step_count, slots, shared); }

  // The wait status of a fork that runs it and exits with 0, or with 99 if a step fails.
  int forked() {
    const pid_t pid = fork();
    if (pid == 0) _exit((*this)() == 0 ? 0 : 99);
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
  }

  const Report& report() const { return shared->report; }

  std::vector<uint8_t> plan;
  Shared* shared;
  int32_t slots[kMaxSlots];
};

struct TemporaryFolder {
  TemporaryFolder() { CHECK(mkdtemp(path) != nullptr); }
  ~TemporaryFolder() { CHECK_EQ(system((std::string("rm -r ") + path).c_str()), 0); }
  std::string operator/(const char* name) const { return std::string(path) + "/" + name; }
  char path[32] = "/tmp/cloister-native-XXXXXX";
};

bool exists(const std::string& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0;
}

void write_text(const std::string& path, const char* text, mode_t mode) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
  CHECK_EQ(fchmod(fd, mode), 0);
  close(fd);
}

void files_and_slots() {
  TemporaryFolder folder;
  Builder builder;
  builder.add(StepKind::openat, {kCwd, folder.path, number(O_RDONLY | O_DIRECTORY), number(0)}, {.out = 0});
  builder.add(StepKind::mkdirat, {SlotRef{0}, "made", number(0700)});
  builder.add(StepKind::openat, {SlotRef{0}, "file", number(O_WRONLY | O_CREAT), number(0600)}, {.out = 3});
  builder.add(StepKind::write, {SlotRef{3}, Bytes{"seven by"}});
  builder.add(StepKind::symlinkat, {"made", SlotRef{0}, "link"});
  builder.add(StepKind::close, {SlotRef{3}});
  Run run(builder);
  CHECK_EQ(run(), 0);
  CHECK_EQ(run.report().error, 0);
  CHECK(run.slots[0] >= 0);
  CHECK_EQ(run.slots[3], -1);
  CHECK(exists(folder / "made"));
  CHECK(exists(folder / "link"));
  struct stat status;
  CHECK_EQ(stat((folder / "file").c_str(), &status), 0);
  CHECK_EQ(status.st_size, 8);
  close(run.slots[0]);
}

void only_the_asked_steps_run() {
  TemporaryFolder folder;
  const std::string first = folder / "first", second = folder / "second";
  Builder builder;
  builder.add(StepKind::mkdirat, {kCwd, first.c_str(), number(0700)});
  builder.add(StepKind::mkdirat, {kCwd, second.c_str(), number(0700)});
  Run run(builder);
  CHECK_EQ(run_steps(run.plan.data(), 1, 2, run.slots, run.shared), 0);
  CHECK(!exists(first));
  CHECK(exists(second));
}

void failure_is_reported() {
  TemporaryFolder folder;
  const std::string made = folder / "made", below = folder / "no/such", never = folder / "never";
  Builder builder;
  builder.add(StepKind::mkdirat, {kCwd, made.c_str(), number(0700)});
  builder.add(StepKind::mkdirat, {kCwd, below.c_str(), number(0700)}, {.tolerate = {EEXIST, EROFS}});
  builder.add(StepKind::mkdirat, {kCwd, never.c_str(), number(0700)});
  Run run(builder);
  CHECK_EQ(run(), -1);
  CHECK_EQ(run.report().error, ENOENT);
  CHECK_EQ(run.report().step, 1);
  CHECK_EQ(run.report().phase, static_cast<int>(Phase::step));
  CHECK(!exists(never));
}

void tolerated_errnos() {
  TemporaryFolder folder;
  const std::string here = folder.path, after = folder / "after";
  for (const std::vector<int16_t>& list : {std::vector<int16_t>{EEXIST}, {EPERM, EROFS, EINVAL, EEXIST}}) {
    Builder builder;
    // A tolerated failure has no result.
    builder.add(StepKind::mkdirat, {kCwd, here.c_str(), number(0700)}, {.out = 2, .tolerate = list});
    builder.add(StepKind::mkdirat, {kCwd, after.c_str(), number(0700)}, {.tolerate = {EEXIST}});
    Run run(builder);
    CHECK_EQ(run(), 0);
    CHECK_EQ(run.slots[2], -1);
    CHECK(exists(after));
  }
}

void skips() {
  TemporaryFolder folder;
  const std::string here = folder.path, done = folder / "done", passed = folder / "passed", last = folder / "last";
  const auto made = [&](const std::string& path, Builder::Options options) {
    Builder builder;
    builder.add(StepKind::mkdirat, {kCwd, path.c_str(), number(0700)}, options);
    builder.add(StepKind::mkdirat, {kCwd, passed.c_str(), number(0700)});
    builder.add(StepKind::mkdirat, {kCwd, last.c_str(), number(0700)});
    Run run(builder);
    CHECK_EQ(run(), 0);
    const int bits = exists(passed) | exists(last) << 1;
    (void)rmdir(passed.c_str());
    (void)rmdir(last.c_str());
    (void)rmdir(done.c_str());
    return bits;
  };
  CHECK_EQ(made(done, {.skip_if_done = 1}), 2);
  CHECK_EQ(made(done, {.skip_if_done = 2}), 0);
  CHECK_EQ(made(here, {.tolerate = {EEXIST}, .skip_if_done = 1}), 3);
  CHECK_EQ(made(here, {.tolerate = {EEXIST}, .skip_if_tolerated = 1}), 2);
  CHECK_EQ(made(done, {.tolerate = {EEXIST}, .skip_if_tolerated = 1}), 3);
}

void descriptor_sends() {
  int pair[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  Builder builder;
  builder.add(StepKind::send_fd, {SlotRef{0}, SlotRef{1}});
  Run run(builder);
  run.slots[0] = pair[0];
  run.slots[1] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK_EQ(run(), 0);
  char byte;
  struct iovec data = {&byte, 1};
  alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  struct msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  CHECK_EQ(recvmsg(pair[1], &message, MSG_CMSG_CLOEXEC), 1);
  const struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  CHECK(header != nullptr && header->cmsg_type == SCM_RIGHTS);
  int got = -1;
  if (header != nullptr) memcpy(&got, CMSG_DATA(header), sizeof(got));
  struct stat sent, received;
  CHECK_EQ(fstat(run.slots[1], &sent), 0);
  CHECK_EQ(fstat(got, &received), 0);
  CHECK_EQ(received.st_rdev, sent.st_rdev);
  for (const int fd : {pair[0], pair[1], run.slots[1], got}) close(fd);
}

void head_of_a_descriptor() {
  TemporaryFolder folder;
  const std::string text = folder / "text";
  write_text(text, "what is in it", 0600);
  Builder builder;
  builder.add(StepKind::openat, {kCwd, text.c_str(), number(O_RDONLY), number(0)}, {.out = 0});
  builder.add(StepKind::read_head, {SlotRef{0}});
  builder.add(StepKind::close, {SlotRef{0}});
  Run run(builder);
  CHECK_EQ(run(), 0);
  CHECK_EQ(run.report().head_size, 13);
  CHECK(memcmp(run.report().head, "what is in it", 13) == 0);
}

// RTM_SETLINK of lo to up, in a network of a user namespace of the fork's own, then of a link that there is none of.
void netlink_refusals() {
  struct Message {
    struct nlmsghdr header;
    struct ifinfomsg link;
  } messages[2] = {};
  for (Message& message : messages) {
    message.header.nlmsg_len = sizeof(message);
    message.header.nlmsg_type = RTM_NEWLINK;
    message.header.nlmsg_flags = NLM_F_REQUEST;
    message.link.ifi_flags = message.link.ifi_change = IFF_UP;
    message.link.ifi_index = 1;
  }
  messages[1].header.nlmsg_flags |= NLM_F_ACK;
  const auto bytes = [&] { return Bytes{std::string(reinterpret_cast<const char*>(messages), sizeof(messages))}; };
  const auto plan = [&](const Bytes& request) {
    Builder builder;
    builder.add(StepKind::unshare, {number(CLONE_NEWUSER | CLONE_NEWNET)});
    builder.add(StepKind::socket, {number(AF_NETLINK), number(SOCK_RAW), number(NETLINK_ROUTE)}, {.out = 0});
    builder.add(StepKind::netlink, {SlotRef{0}, request});
    return builder;
  };
  Run works(plan(bytes()));
  CHECK_EQ(works.forked(), 0);
  // The first one is refused, and that is what is told, not that the second was done.
  messages[0].link.ifi_index = 77;
  Run fails(plan(bytes()));
  CHECK_EQ(WEXITSTATUS(fails.forked()), 99);
  CHECK_EQ(fails.report().error, ENODEV);
  CHECK_EQ(fails.report().step, 2u);
}

void process_state_changes_in_a_fork() {
  TemporaryFolder folder;
  const std::string made = folder / "made";
  Builder builder;
  builder.add(StepKind::umask, {number(0)});
  builder.add(StepKind::chdir, {folder.path});
  builder.add(StepKind::mkdirat, {kCwd, "made", number(0777)});
  builder.add(StepKind::setsid, {});
  Run run(builder);
  CHECK_EQ(run.forked(), 0);
  struct stat status;
  CHECK_EQ(stat(made.c_str(), &status), 0);
  CHECK_EQ(status.st_mode & 0777, 0777);
}

void bounding_set() {
  Builder keeps_all;
  keeps_all.add(StepKind::drop_bounding, {number(-1), number(40)});
  CHECK_EQ(Run(keeps_all).forked(), 0);
  Builder keeps_one;
  keeps_one.add(StepKind::drop_bounding, {number(1 << 3), number(5)});
  Run run(keeps_one);
  if (prctl(PR_CAPBSET_READ, 0) == 1 && geteuid() == 0) {
    const pid_t pid = fork();
    if (pid == 0) {
      const bool done = run() == 0 && prctl(PR_CAPBSET_READ, 3) == 1 && prctl(PR_CAPBSET_READ, 0) == 0 &&
                        prctl(PR_CAPBSET_READ, 5) == 0 && prctl(PR_CAPBSET_READ, 6) == 1;
      _exit(done ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK_EQ(status, 0);
  } else {
    CHECK_EQ(WEXITSTATUS(run.forked()), 99);
    CHECK_EQ(run.report().error, EPERM);
  }
}

// Reading is allowed below one folder: a file of another one cannot be opened any more, and one of that can.
void landlock_rules() {
  if (raw_syscall(SYS_landlock_create_ruleset, 0, 0, 1) < 0) return;
  TemporaryFolder allowed, other;
  write_text(allowed / "file", "x", 0600);
  write_text(other / "file", "x", 0600);
  constexpr int64_t kReadFile = 1 << 2;
  const Bytes handled = {std::string("\x04\0\0\0\0\0\0\0", 8)};
  const std::string inside = allowed / "file", outside = other / "file";
  for (const std::string& path : {inside, outside}) {
    Builder builder;
    builder.add(StepKind::landlock_create_ruleset, {handled, number(0)}, {.out = 0});
    builder.add(StepKind::openat, {kCwd, allowed.path, number(O_PATH | O_DIRECTORY), number(0)}, {.out = 1});
    builder.add(StepKind::landlock_add_path, {SlotRef{0}, SlotRef{1}, number(kReadFile)});
    builder.add(StepKind::prctl, {number(PR_SET_NO_NEW_PRIVS), number(1), number(0), number(0), number(0)});
    builder.add(StepKind::landlock_restrict_self, {SlotRef{0}, number(0)});
    builder.add(StepKind::openat, {kCwd, path.c_str(), number(O_RDONLY), number(0)});
    Run run(builder);
    CHECK_EQ(WEXITSTATUS(run.forked()), path == inside ? 0 : 99);
    CHECK_EQ(run.report().error, path == inside ? 0 : EACCES);
  }
}

void filter_is_installed() {
  // ld nr; jeq getppid, errno 1234, allow
  const struct sock_filter program[] = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, 0},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_getppid},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 1234},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  };
  Builder builder;
  builder.add(StepKind::prctl, {number(PR_SET_NO_NEW_PRIVS), number(1), number(0), number(0), number(0)});
  builder.add(StepKind::install_filter,
              {number(0), Bytes{std::string(reinterpret_cast<const char*>(program), sizeof(program))}});
  Run run(builder);
  const pid_t pid = fork();
  if (pid == 0) _exit(run() == 0 && syscall(SYS_getppid) == -1 && errno == 1234 ? 0 : 1);
  int status;
  waitpid(pid, &status, 0);
  CHECK_EQ(status, 0);
}

void ids_are_awaited() {
  Builder builder;
  builder.add(StepKind::await_ids, {});
  builder.add(StepKind::umask, {number(022)});
  Run written(builder);
  written.shared->ids = 1;
  CHECK_EQ(written.forked(), 0);
  // The parent could not write them, and tells that itself: the child says nothing.
  Run failed(builder);
  failed.shared->ids = 2;
  CHECK_EQ(WEXITSTATUS(failed.forked()), 127);
  CHECK_EQ(failed.report().error, 0);
}

std::string head_text(const Run& run) {
  return {reinterpret_cast<const char*>(run.report().head), run.report().head_size};
}

void exec_succeeds() {
  Builder builder;
  builder.add(StepKind::exec, {Words{"/no/such", "/bin/true"}, Words{"true"}, Words{"A=1"}});
  Run run(builder);
  CHECK_EQ(run.forked(), 0);
  CHECK_EQ(run.shared->state, static_cast<int>(ChildState::executing));
  CHECK_EQ(run.report().error, 0);
}

void exec_fails() {
  TemporaryFolder folder;
  const std::string missing = folder / "missing", plain = folder / "plain", script = folder / "script";
  write_text(plain, "#!/bin/sh\n", 0644);
  write_text(script, "#!/no/such/interpreter\nexit\n", 0755);
  struct Case {
    Words paths;
    int error, candidate;
    const char* head;
  };
  const Case cases[] = {
      {{missing}, ENOENT, 0, ""},
      {{missing, missing}, ENOENT, 0, ""},
      {{}, ENOENT, 0, ""},
      // EACCES is remembered, and wins over ENOENT on either side.
      {{missing, plain, missing}, EACCES, 1, "#!/bin/sh\n"},
      {{plain, missing}, EACCES, 0, "#!/bin/sh\n"},
      // It exists, so the search ends; its head tells that the interpreter is what is missing.
      {{missing, script, "/bin/true"}, ENOENT, 1, "#!/no/such/interpreter\nexit\n"},
      {{plain + "/x", missing}, ENOTDIR, 0, ""},
  };
  for (const Case& expected : cases) {
    Builder builder;
    builder.add(StepKind::umask, {number(022)});
    builder.add(StepKind::exec, {expected.paths, Words{"program"}, Words{}});
    Run run(builder);
    CHECK_EQ(WEXITSTATUS(run.forked()), 99);
    CHECK_EQ(run.report().error, expected.error);
    CHECK_EQ(run.report().step, 1);
    CHECK_EQ(run.report().candidate, expected.candidate);
    const std::string head = head_text(run);
    CHECK_TEXT(head.c_str(), expected.head);
  }
}

}  // namespace

int main() {
  files_and_slots();
  only_the_asked_steps_run();
  failure_is_reported();
  tolerated_errnos();
  skips();
  descriptor_sends();
  head_of_a_descriptor();
  netlink_refusals();
  process_state_changes_in_a_fork();
  bounding_set();
  landlock_rules();
  filter_is_installed();
  ids_are_awaited();
  exec_succeeds();
  exec_fails();
  return result();
}
