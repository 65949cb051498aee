// Everything here runs after the clone, sharing memory (and TLS) with a Node process of many threads: raw system calls
// over the checked plan, no allocation, no lock, no libc. A test holds this object's undefined symbols to an allow-list.

#include "interpreter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "../sys/raw_syscall.h"
#include "clone.h"

namespace cloister {

const StepShape kStepShapes[static_cast<int>(StepKind::count)] = {
#define CALL(name, number, signature) {#name, number, signature},
#define SPECIAL(name, signature) {#name, -1, signature},
#include "steps.def"
#undef CALL
#undef SPECIAL
};

namespace {

long pointer(const void* p) { return reinterpret_cast<long>(p); }

[[noreturn]] void leave() {
  for (;;) raw_syscall(SYS_exit_group, 127);
}

int slot_fd(int64_t arg, const int32_t* slots) { return arg < 0 ? static_cast<int>(arg) : slots[arg]; }

const uint8_t* at(const uint8_t* plan, int64_t offset) { return offset < 0 ? nullptr : plan + (offset & 0xffffffff); }

// check_plan() has replaced a vector's offsets by addresses.
const char* const* vector_at(const uint8_t* plan, int64_t offset) {
  return reinterpret_cast<const char* const*>(at(plan, offset));
}

long call(const Step& step, const StepShape& shape, const uint8_t* plan, const int32_t* slots) {
  long a[6] = {};
  for (int i = 0; shape.signature[i] != '\0'; i++) {
    const int64_t arg = step.args[i];
    switch (shape.signature[i]) {
      case 'i': a[i] = arg; break;
      case 'd': a[i] = slot_fd(arg, slots); break;
      case 'n': a[i] = step.args[i - 1] < 0 ? 0 : step.args[i - 1] >> 32; break;
      default: a[i] = pointer(at(plan, arg));
    }
  }
  return raw_syscall(shape.number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

long await_ids(Shared* shared) {
  // No FUTEX_PRIVATE: the word is also shared with a child that has an address space of its own. If the parent dies, the death
  // signal that was asked for before ends this wait.
  uint32_t seen;
  while ((seen = __atomic_load_n(&shared->ids, __ATOMIC_ACQUIRE)) == 0)
    raw_syscall(SYS_futex, pointer(&shared->ids), FUTEX_WAIT, 0, 0);
  if (seen != 1) leave();  // the parent tells the error itself
  return 0;
}

// The kernel marks the word when the thread that holds it ends, before it sends death signals (exit_mm_release, exit_notify in
// kernel/exit.c). So if it is not marked now, the signal that was asked for before is still to come.
void expect_alive(const Shared* shared) {
  if (shared->owner != nullptr && __atomic_load_n(shared->owner, __ATOMIC_ACQUIRE) & FUTEX_OWNER_DIED) leave();
}

long drop_bounding(uint64_t keep, int64_t last) {
  for (int64_t capability = 0; capability <= last; capability++) {
    if (keep >> capability & 1) continue;
    const long result = raw_syscall(SYS_prctl, PR_CAPBSET_DROP, capability);
    if (result < 0) return result;
  }
  return 0;
}

long send_fd(int socket, int fd) {
  char byte = 0;
  struct iovec data = {&byte, 1};
  alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  struct msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  struct cmsghdr* header = reinterpret_cast<struct cmsghdr*>(control);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  *reinterpret_cast<int*>(CMSG_DATA(header)) = fd;
  return raw_syscall(SYS_sendmsg, socket, pointer(&message), MSG_NOSIGNAL);
}

// As execvp(3) goes through PATH: what does not exist is passed over, EACCES is remembered and wins over ENOENT.
long exec(const char* const* paths, const char* const* argv, const char* const* envp, Report* report) {
  long result = -ENOENT;
  report->candidate = 0;
  report->head_size = 0;  // of a read_head before
  for (int i = 0; paths[i] != nullptr; i++) {
    const long error = raw_syscall(SYS_execve, pointer(paths[i]), pointer(argv), pointer(envp));
    // ENOENT is also what a script or a dynamic program gets whose interpreter is missing: the file itself tells.
    const bool exists = error != -ENOENT || raw_syscall(SYS_faccessat, AT_FDCWD, pointer(paths[i]), 0) == 0;
    if (i == 0 || exists) {
      result = error;
      report->candidate = i;
    }
    if (exists && error != -EACCES && error != -ENOTDIR) break;
  }
  const long file =
      raw_syscall(SYS_openat, AT_FDCWD, pointer(paths[report->candidate]), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file >= 0) {
    const long size = raw_syscall(SYS_read, file, pointer(report->head), sizeof(report->head));
    report->head_size = size > 0 ? static_cast<uint32_t>(size) : 0;
    raw_syscall(SYS_close, file);
  }
  return result;
}

long install_filter(const uint8_t* plan, int64_t flags, int64_t bytes) {
  const struct sock_fprog program = {
      static_cast<unsigned short>((bytes >> 32) / static_cast<int64_t>(sizeof(struct sock_filter))),
      const_cast<struct sock_filter*>(reinterpret_cast<const struct sock_filter*>(at(plan, bytes)))};
  return raw_syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, pointer(&program));
}

long attach_device_program(long group, long program) {
  // The first members of union bpf_attr; the rest is 0 for the kernel.
  const struct {
    uint32_t target_fd, attach_bpf_fd, attach_type, attach_flags;
  } attributes = {static_cast<uint32_t>(group), static_cast<uint32_t>(program), BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI};
  return raw_syscall(SYS_bpf, BPF_PROG_ATTACH, pointer(&attributes), sizeof(attributes));
}

// The kernel does what it is asked in sendto(2) itself; what it says to it can be read when that returns, refusals first, as
// nothing but the last message asks for an answer (netlink_rcv_skb).
long netlink(int socket, const uint8_t* messages, int64_t size) {
  const long sent = raw_syscall(SYS_sendto, socket, pointer(messages), size, 0, 0, 0);
  if (sent < 0) return sent;
  alignas(struct nlmsghdr) uint8_t answer[512];
  const long length = raw_syscall(SYS_recvfrom, socket, pointer(answer), sizeof(answer), MSG_DONTWAIT, 0, 0);
  if (length == -EAGAIN) return 0;
  if (length < 0) return length;
  const struct nlmsghdr* header = reinterpret_cast<const struct nlmsghdr*>(answer);
  if (length < static_cast<long>(sizeof(*header) + sizeof(int32_t)) || header->nlmsg_type != NLMSG_ERROR) return 0;
  return *reinterpret_cast<const int32_t*>(header + 1);
}

// By descriptor one at a time: a root of 500 layers would need as many slots, and a step of its own for each of 1,500 calls.
long overlay_lowers(long context, long directory, const char* const* names, Report* report) {
  for (uint32_t i = 0; names[i] != nullptr; i++) {
    report->candidate = static_cast<int32_t>(2 * i);
    const long fd = raw_syscall(SYS_openat, directory, pointer(names[i]), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fd;
    report->candidate = static_cast<int32_t>(2 * i + 1);
    constexpr long kSetFd = 5;  // FSCONFIG_SET_FD, enum fsconfig_command of linux/mount.h
    const long result = raw_syscall(SYS_fsconfig, context, kSetFd, pointer("lowerdir+"), 0, fd);
    raw_syscall(SYS_close, fd);
    if (result < 0) return result;
  }
  return 0;
}

long landlock_add_path(long ruleset, long parent, int64_t access) {
  // linux/landlock.h, struct landlock_path_beneath_attr; headers of 5.10 have none.
  const struct __attribute__((packed)) {
    uint64_t allowed_access;
    int32_t parent_fd;
  } rule = {static_cast<uint64_t>(access), static_cast<int32_t>(parent)};
  constexpr long kPathBeneath = 1;
  return raw_syscall(SYS_landlock_add_rule, ruleset, kPathBeneath, pointer(&rule), 0);
}

// As CLONE_CLEAR_SIGHAND does: what is ignored stays so. The table is a copy of the parent's.
void clear_handlers() {
  struct {
    long handler, flags, restorer, mask;
  } action;
  for (long signal = 1; signal <= 64; signal++) {
    if (raw_syscall(SYS_rt_sigaction, signal, 0, pointer(&action), 8) < 0 || action.handler <= 1) continue;
    action = {};
    raw_syscall(SYS_rt_sigaction, signal, pointer(&action), 0, 8);
  }
}

bool tolerates(const Step& step, long error) {
  for (const int16_t errno_ : step.tolerate)
    if (errno_ != 0 && error == -errno_) return true;
  return false;
}

}  // namespace

int run_steps(const uint8_t* plan, uint32_t from, uint32_t to, int32_t* slots, Shared* shared) {
  const Step* steps = plan_steps(plan);
  for (uint32_t i = from; i < to; i++) {
    const Step& step = steps[i];
    const StepShape& shape = kStepShapes[step.kind];
    long result = 0;
    switch (static_cast<StepKind>(step.kind)) {
      case StepKind::await_ids: result = await_ids(shared); break;
      case StepKind::expect_alive: expect_alive(shared); break;
      case StepKind::drop_bounding: result = drop_bounding(static_cast<uint64_t>(step.args[0]), step.args[1]); break;
      case StepKind::install_filter: result = install_filter(plan, step.args[0], step.args[1]); break;
      case StepKind::attach_device_program:
        result = attach_device_program(slot_fd(step.args[0], slots), slot_fd(step.args[1], slots));
        break;
      case StepKind::landlock_add_path:
        result = landlock_add_path(slot_fd(step.args[0], slots), slot_fd(step.args[1], slots), step.args[2]);
        break;
      case StepKind::send_fd: result = send_fd(slot_fd(step.args[0], slots), slot_fd(step.args[1], slots)); break;
      case StepKind::netlink:
        result =
            netlink(slot_fd(step.args[0], slots), at(plan, step.args[1]), step.args[1] < 0 ? 0 : step.args[1] >> 32);
        break;
      case StepKind::overlay_lowers:
        result = overlay_lowers(slot_fd(step.args[0], slots), slot_fd(step.args[1], slots),
                                vector_at(plan, step.args[2]), &shared->report);
        break;
      case StepKind::read_head:
        result = raw_syscall(SYS_read, slot_fd(step.args[0], slots), pointer(shared->report.head),
                             sizeof(shared->report.head));
        shared->report.head_size = result > 0 ? static_cast<uint32_t>(result) : 0;
        break;
      case StepKind::close:
        result = call(step, shape, plan, slots);
        if (step.args[0] >= 0) slots[step.args[0]] = -1;
        break;
      case StepKind::exec:
        __atomic_store_n(&shared->state, static_cast<uint32_t>(ChildState::executing), __ATOMIC_RELEASE);
        result = exec(vector_at(plan, step.args[0]), vector_at(plan, step.args[1]), vector_at(plan, step.args[2]),
                      &shared->report);
        break;
      case StepKind::execveat:
        __atomic_store_n(&shared->state, static_cast<uint32_t>(ChildState::executing), __ATOMIC_RELEASE);
        result = call(step, shape, plan, slots);
        break;
      case StepKind::openat2:
        // A '..' on the way is EAGAIN if anything was mounted or renamed meanwhile, anywhere: openat2(2), RESOLVE_IN_ROOT.
        for (int tries = 0; tries < 1000; tries++) {
          result = call(step, shape, plan, slots);
          if (result != -EAGAIN) break;
        }
        break;
      default: result = call(step, shape, plan, slots);
    }
    if (result >= 0) {
      if (step.out >= 0) slots[step.out] = static_cast<int32_t>(result);
      if (step.flags & kSkipIfDone) i += step.skip;
    } else if (tolerates(step, result)) {
      if (step.flags & kSkipIfTolerated) i += step.skip;
    } else {
      shared->report.step = i;
      __atomic_store_n(&shared->report.error, static_cast<int32_t>(-result), __ATOMIC_RELEASE);
      return -1;
    }
  }
  return 0;
}

void child_main(void* start) {
  ChildStart* child = static_cast<ChildStart*>(start);
  if (child->clears_handlers) clear_handlers();
  const PlanHeader* header = reinterpret_cast<const PlanHeader*>(child->plan);
  __atomic_store_n(&child->shared->state, static_cast<uint32_t>(ChildState::running), __ATOMIC_RELEASE);
  // Only then is somebody waiting for it (Launch::clone_in_vfork).
  if (header->vfork) raw_syscall(SYS_futex, pointer(&child->shared->state), FUTEX_WAKE, 1);
  run_steps(child->plan, header->join_end, header->step_count, child->slots, child->shared);
  leave();
}

void joiner_main(void* start) {
  ChildStart* child = static_cast<ChildStart*>(start);
  if (child->clears_handlers) clear_handlers();
  const PlanHeader* header = reinterpret_cast<const PlanHeader*>(child->plan);
  Shared* shared = child->shared;
  // The descriptor table is the parent's: what these steps open, the parent has.
  if (run_steps(child->plan, header->parent_end, header->join_end, shared->slots, shared) < 0 ||
      header->clone_flags == 0)
    leave();
  for (uint32_t i = 0; i < header->slot_count; i++) child->slots[i] = shared->slots[i];
  const long pid = clone_process(static_cast<const struct clone_args*>(child->clone_args), child_main, child,
                                 &child->clears_handlers);
  if (pid > 0) {
    shared->pid = static_cast<int32_t>(pid);
  } else {
    shared->report.phase = static_cast<uint32_t>(Phase::clone_child);
    __atomic_store_n(&shared->report.error, static_cast<int32_t>(-pid), __ATOMIC_RELEASE);
  }
  leave();
}

}  // namespace cloister
