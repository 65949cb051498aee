#pragma once

#include <errno.h>
#include <linux/sched.h>

#include <cstdint>

#include "../sys/raw_syscall.h"

namespace cloister {

constexpr uint64_t kPidfdFlag = 0x1000;            // CLONE_PIDFD
constexpr uint64_t kIntoCgroupFlag = 0x200000000;  // CLONE_INTO_CGROUP
constexpr uint64_t kNewTimeFlag = 0x80;            // CLONE_NEWTIME: below the exit signal of clone(2)

// clone3(2) or clone(2) with a stack of the child's own and a function to run on it: libc has no wrapper that can be used here,
// and returning into the caller's frame on another stack cannot be written in C++. The fourth and fifth argument of clone(2) are
// for flags that we do not set.
inline long clone_and_run(long number, long a, long b, long c, void (*entry)(void*), void* argument) {
  long result;
#if defined(__x86_64__)
  // Named registers: any other could be the frame pointer, which the child's side clears.
  register void (*function)(void*) __asm__("r8") = entry;
  register void* data __asm__("r9") = argument;
  __asm__ volatile(
      "syscall\n"
      "test %%rax, %%rax\n"
      "jnz 1f\n"
      "xor %%ebp, %%ebp\n"
      "mov %[argument], %%rdi\n"
      "call *%[entry]\n"
      "ud2\n"
      "1:\n"
      : "=a"(result)
      : "0"(number), "D"(a), "S"(b), "d"(c), [entry] "r"(function), [argument] "r"(data)
      : "rcx", "r11", "memory");
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register void (*function)(void*) __asm__("x9") = entry;
  register void* data __asm__("x10") = argument;
  __asm__ volatile(
      "svc #0\n"
      "cbnz x0, 1f\n"
      "mov x29, xzr\n"
      "mov x0, %[argument]\n"
      "blr %[entry]\n"
      "brk #1\n"
      "1:\n"
      : "+r"(x0)
      : "r"(x8), "r"(x1), "r"(x2), [entry] "r"(function), [argument] "r"(data)
      : "memory", "x30");
  result = x0;
#endif
  return result;
}

// By clone(2) where a filter around us answers ENOSYS: it cannot see the flags of clone3(2), which are in memory. Then the child
// resets the handlers of signals itself (`clears_handlers`), and CLONE_PARENT_SETTID, which cannot be had together with CLONE_PIDFD,
// is the caller's to do.
inline long clone_process(const struct clone_args* args, void (*entry)(void*), void* argument,
                          uint32_t* clears_handlers) {
  const long result =
      clone_and_run(SYS_clone3, reinterpret_cast<long>(args), static_cast<long>(sizeof(*args)), 0, entry, argument);
  // In a vfork the caller sleeps, and somebody else needs the pid.
  if (result != -ENOSYS || args->flags & (kIntoCgroupFlag | kNewTimeFlag | CLONE_VFORK)) return result;
  *clears_handlers = 1;
  const uint64_t flags = (args->flags & ~(CLONE_CLEAR_SIGHAND | CLONE_PARENT_SETTID)) | args->exit_signal;
  return clone_and_run(SYS_clone, static_cast<long>(flags), static_cast<long>(args->stack + args->stack_size),
                       static_cast<long>(args->pidfd), entry, argument);
}

}  // namespace cloister
