// The limit: exactly the system calls of a plan, by a program that does nothing else. No event loop, no JavaScript, no
// report pipe; the interpreter is the library's own (included as source), so both run the same steps.
//
//   limit PLAN SLOTS [vfork|vm]     PLAN: PlanBuilder.encode(), in a file. SLOTS: its initial descriptors, "5,6,-1,…",
//                                   inherited at the same numbers (mount_setattr's attributes hold one as a number).
//
// Each byte that is read from standard input is one run, from the parent's first step to the end of the program; its
// microseconds are written as a line. vfork: the caller sleeps until exec, a second thread writes the id maps. vm: the
// caller goes on and writes them itself, as the library does.
//
// Built with TRACE it also times every system call, and prints a line for each step (its number, the median of its
// microseconds, how often it ran, their mean) when standard input ends.

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "../csrc/child/clone.h"
#include "../csrc/sys/raw_syscall.h"

static inline uint64_t ticks() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  uint64_t value;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
  return value;
#endif
}

#ifdef TRACE
namespace cloister {
struct Call {
  long number, result;
  uint64_t begin, end;
};
// The child shares our memory, so its calls land here too, after the parent's.
Call trace[4096];
unsigned traced;

inline long traced_syscall(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  Call& call = trace[traced++ & 4095];
  call.number = number;
  call.end = 0;
  call.begin = ticks();
  call.result = raw_syscall(number, a, b, c, d, e, f);
  call.end = ticks();
  return call.result;
}
}  // namespace cloister
#define raw_syscall traced_syscall
#include "../csrc/child/interpreter.cc"
#undef raw_syscall
#else
#include "../csrc/child/interpreter.cc"
#endif

#include "../csrc/core/id_map.h"
#include "../csrc/core/plan_check.h"

using namespace cloister;

namespace {

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
constexpr uint64_t kClearSighand = 0x100000000;  // CLONE_CLEAR_SIGHAND
constexpr uint64_t kIntoCgroup = 0x200000000;    // CLONE_INTO_CGROUP

uint8_t* plan;
const PlanHeader* header;
Shared shared;
ChildStart start;
int32_t given[kMaxSlots];
alignas(16) uint8_t stack[65536];
uint32_t turn;    // futex: counted up by the child, for the thread that writes the id maps
uint32_t closed;  // 1: that thread is to end
bool with_vfork = true;

struct Moments {
  uint64_t begin, parent_done, cloned, child_first, ids_begin, ids_end, ended, done;
} at_;

[[noreturn]] void die(const char* what, int error) {
  fprintf(stderr, "limit: %s: %s\n", what, strerror(error));
  exit(1);
}

double now_us() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

long futex(uint32_t* word, int operation, uint32_t value) {
  return raw_syscall(SYS_futex, reinterpret_cast<long>(word), operation, value, 0);
}

void write_ids() {
  at_.ids_begin = ticks();
  const auto [phase, error] = write_id_maps(shared.pid, *header, plan);
  if (error != 0) shared.report.error = error;
  __atomic_store_n(&shared.ids, error == 0 ? 1u : 2u, __ATOMIC_RELEASE);
  futex(&shared.ids, FUTEX_WAKE, INT32_MAX);
  at_.ids_end = ticks();
}

// While the caller sleeps in its vfork.
void* writer(void*) {
  for (uint32_t seen = 0;;) {
    uint32_t next;
    while ((next = __atomic_load_n(&turn, __ATOMIC_ACQUIRE)) == seen) futex(&turn, FUTEX_WAIT_PRIVATE, seen);
    seen = next;
    if (__atomic_load_n(&closed, __ATOMIC_ACQUIRE)) return nullptr;
    write_ids();
  }
}

[[noreturn]] void child_entry(void* argument) {
  at_.child_first = ticks();
  if (with_vfork && header->uid_map >= 0) {
    __atomic_fetch_add(&turn, 1, __ATOMIC_RELEASE);
    futex(&turn, FUTEX_WAKE_PRIVATE, 1);
  }
  ChildStart* child = static_cast<ChildStart*>(argument);
  run_steps(plan, header->join_end, header->step_count, child->slots, &shared);
  for (;;) raw_syscall(SYS_exit_group, 127);
}

// The directories that the plan has made by their whole path are its control groups.
void remove_groups() {
  const Step* steps = plan_steps(plan);
  for (uint32_t i = 0; i < header->parent_end; i++)
    if (steps[i].kind == static_cast<uint16_t>(StepKind::mkdirat) && steps[i].args[0] == AT_FDCWD)
      (void)rmdir(reinterpret_cast<const char*>(plan + steps[i].args[1]));
}

void run_once() {
  memset(static_cast<void*>(&shared), 0, offsetof(Shared, slots));
  memcpy(shared.slots, given, sizeof(given));
#ifdef TRACE
  traced = 0;
#endif
  at_ = {};
  at_.begin = ticks();
  if (run_steps(plan, 0, header->parent_end, shared.slots, &shared) < 0)
    die("a step of the parent", shared.report.error);
  at_.parent_done = ticks();
  memcpy(start.slots, shared.slots, sizeof(given));
  // What stands for the report pipe: the plan puts it above the program's descriptors, to be closed by exec.
  static const int report = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (header->report_slot >= 0) start.slots[header->report_slot] = report;
  struct clone_args args = {};
  args.flags = header->clone_flags | CLONE_VM | (with_vfork ? CLONE_VFORK : 0) | CLONE_PARENT_SETTID | kPidfdFlag |
               kClearSighand;
  args.pidfd = reinterpret_cast<uint64_t>(&shared.pidfd);
  args.parent_tid = reinterpret_cast<uint64_t>(&shared.pid);
  args.stack = reinterpret_cast<uint64_t>(stack);
  args.stack_size = sizeof(stack);
  args.exit_signal = SIGCHLD;
  if (header->cgroup_slot >= 0) {
    args.flags |= kIntoCgroup;
    args.cgroup = static_cast<uint64_t>(shared.slots[header->cgroup_slot]);
  }
  const long pid = clone_and_run(SYS_clone3, reinterpret_cast<long>(&args), sizeof(args), 0, child_entry, &start);
  at_.cloned = ticks();
  if (pid < 0) die("clone3", static_cast<int>(-pid));
  if (!with_vfork && header->uid_map >= 0) write_ids();
  siginfo_t status = {};
  if (waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(shared.pidfd), &status, WEXITED | __WALL) < 0)
    die("waitid", errno);
  at_.ended = ticks();
  close(shared.pidfd);
  remove_groups();
  for (uint32_t i = 0; i < header->slot_count; i++)
    if (shared.slots[i] >= 0 && given[i] < 0) close(shared.slots[i]);
  at_.done = ticks();
  if (shared.report.error != 0) {
    fprintf(stderr, "limit: step %u: %s\n", shared.report.step, strerror(shared.report.error));
    exit(1);
  }
  if (status.si_code != CLD_EXITED || status.si_status != 0) die("the program did not end with 0", 0);
  // A change of ids in a child with our memory clears this, and /proc/PID/uid_map becomes root's (commit_creds).
  if (geteuid() != 0) prctl(PR_SET_DUMPABLE, 1);
}

#ifdef TRACE
std::map<std::string, std::vector<double>> samples;

void record(const std::string& name, uint64_t begin, uint64_t end, double per_us) {
  samples[name].push_back(static_cast<double>(static_cast<int64_t>(end - begin)) / per_us);
}

// Which call belongs to which step follows from the results: run_steps, once more.
void assign(uint32_t from, uint32_t to, unsigned& next, double per_us) {
  const Step* steps = plan_steps(plan);
  for (uint32_t i = from; i < to && next < traced; i++) {
    const Step& step = steps[i];
    const StepKind kind = static_cast<StepKind>(step.kind);
    unsigned calls = 1;
    if (kind == StepKind::await_ids) {
      for (calls = 0; next + calls < traced && trace[next + calls].number == SYS_futex;) calls++;
    } else if (kind == StepKind::expect_alive) {
      calls = 0;
    } else if (kind == StepKind::netlink) {
      // What is sent, and the answer to it.
      calls = 2;
    } else if (kind == StepKind::drop_bounding) {
      calls = 0;
      for (int64_t c = 0; c <= step.args[1]; c++) calls += !(static_cast<uint64_t>(step.args[0]) >> c & 1);
    }
    char name[64];
    snprintf(name, sizeof(name), "step %u", i);
    if (kind == StepKind::exec || kind == StepKind::execveat) {
      record(name, trace[next].begin, with_vfork ? at_.cloned : trace[next].begin, per_us);
      record("program, exit, wait", with_vfork ? at_.cloned : trace[next].begin, at_.ended, per_us);
      return;
    }
    const long result = calls > 0 ? trace[next + calls - 1].result : 0;
    if (calls > 0) record(name, trace[next].begin, trace[next + calls - 1].end, per_us);
    next += calls;
    if (result >= 0 ? step.flags & kSkipIfDone : step.flags & kSkipIfTolerated) i += step.skip;
  }
}

void summarise(double per_us) {
  unsigned next = 0;
  assign(0, header->parent_end, next, per_us);
  const unsigned parent_calls = next;
  record("parent's steps", at_.begin, at_.parent_done, per_us);
  record("clone3 to the child's first instruction", at_.parent_done, at_.child_first, per_us);
  if (at_.ids_begin != 0) {
    record("child's begin to writer's begin", at_.child_first, at_.ids_begin, per_us);
    record("write the id maps", at_.ids_begin, at_.ids_end, per_us);
  }
  assign(header->join_end, header->step_count, next, per_us);
  // Waiting for the id maps is none, one or several, as luck has it.
  unsigned waits = 0;
  for (unsigned i = 0; i < traced; i++) waits += trace[i].number == SYS_futex;
  samples["calls of the parent"].push_back(parent_calls);
  samples["calls of the child"].push_back(traced - waits - parent_calls);
  record("child's steps", at_.child_first, trace[next].begin, per_us);
  record("close what is left", at_.ended, at_.done, per_us);
  record("all", at_.begin, at_.done, per_us);
}
#endif

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: limit PLAN SLOTS [vfork|vm]\n");
    return 2;
  }
  with_vfork = argc < 4 || strcmp(argv[3], "vm") != 0;
  FILE* file = fopen(argv[1], "re");
  struct stat about;
  if (file == nullptr || fstat(fileno(file), &about) < 0) die(argv[1], errno);
  const size_t size = static_cast<size_t>(about.st_size);
  plan = static_cast<uint8_t*>(aligned_alloc(64, (size + 127) & ~static_cast<size_t>(63)));
  if (fread(plan, 1, size, file) != size) die(argv[1], EIO);
  fclose(file);
  if (const char* reason = check_plan(plan, size)) {
    fprintf(stderr, "limit: the plan is refused: %s\n", reason);
    return 1;
  }
  header = reinterpret_cast<const PlanHeader*>(plan);
  if (header->joiner || header->clone_flags == 0) {
    fprintf(stderr, "limit: only plans with a child and no joiner\n");
    return 1;
  }
  std::fill(given, given + kMaxSlots, -1);
  char* word = argv[2];
  for (uint32_t i = 0; i < header->slot_count && *word != '\0'; i++) {
    given[i] = static_cast<int32_t>(strtol(word, &word, 10));
    if (*word == ',') word++;
    if (given[i] >= 0) fcntl(given[i], F_SETFD, FD_CLOEXEC);
  }
  start.plan = plan;
  start.shared = &shared;
  umask(0);
  sigset_t all;
  sigfillset(&all);
  sigdelset(&all, SIGINT);
  sigdelset(&all, SIGTERM);
  sigprocmask(SIG_BLOCK, &all, nullptr);
  pthread_t thread;
  if (with_vfork && pthread_create(&thread, nullptr, writer, nullptr) != 0) die("pthread_create", EAGAIN);

  char bytes[64];
  for (ssize_t count; (count = read(0, bytes, sizeof(bytes))) > 0;) {
    while (count-- > 0) {
      const double begin = now_us();
      run_once();
      const double took = now_us() - begin;
#ifdef TRACE
      summarise(static_cast<double>(at_.done - at_.begin) / took);
#else
      printf("%.1f\n", took);
      fflush(stdout);
#endif
    }
  }
#ifdef TRACE
  for (auto& [name, values] : samples) {
    std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
    double sum = 0;
    for (const double value : values) sum += value;
    printf("%s\t%.2f\t%zu\t%.2f\n", name.c_str(), values[values.size() / 2], values.size(),
           sum / static_cast<double>(values.size()));
  }
#endif
  return 0;
}
