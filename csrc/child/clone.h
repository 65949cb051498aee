#pragma once

#include <linux/sched.h>

#include "../sys/raw_syscall.h"

namespace cloister {

// clone3(2) with a stack of the child's own and a function to run on it: libc has no wrapper, and returning into the
// caller's frame on another stack cannot be written in C++.
inline long clone3_call(const struct clone_args* args, void (*entry)(void*), void* argument) {
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
      : "0"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), [entry] "r"(function), [argument] "r"(data)
      : "rcx", "r11", "memory");
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = SYS_clone3;
  register long x0 __asm__("x0") = (long)args;
  register long x1 __asm__("x1") = sizeof(*args);
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
      : "r"(x8), "r"(x1), [entry] "r"(function), [argument] "r"(data)
      : "memory", "x30");
  result = x0;
#endif
  return result;
}

// clone(2), the same way, for where a system call filter hides clone3(2), as Docker's does: it looks at flags, which clone3 has in
// memory. The child has our signal handlers: its plan must take them away before it unblocks signals.
inline long clone_call(unsigned long flags, void* stack_top, int32_t* pidfd, void (*entry)(void*), void* argument) {
  long result;
#if defined(__x86_64__)
  register void (*function)(void*) __asm__("r8") = entry;
  register void* data __asm__("r9") = argument;
  __asm__ volatile(
      "xor %%r10d, %%r10d\n"
      "syscall\n"
      "test %%rax, %%rax\n"
      "jnz 1f\n"
      "xor %%ebp, %%ebp\n"
      "mov %[argument], %%rdi\n"
      "call *%[entry]\n"
      "ud2\n"
      "1:\n"
      : "=a"(result)
      : "0"((long)SYS_clone), "D"(flags), "S"(stack_top), "d"(pidfd), [entry] "r"(function), [argument] "r"(data)
      : "rcx", "r10", "r11", "memory");
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = (long)SYS_clone;
  register long x0 __asm__("x0") = (long)flags;
  register void* x1 __asm__("x1") = stack_top;
  register int32_t* x2 __asm__("x2") = pidfd;
  register void (*function)(void*) __asm__("x9") = entry;
  register void* data __asm__("x10") = argument;
  __asm__ volatile(
      "mov x3, xzr\n"
      "mov x4, xzr\n"
      "svc #0\n"
      "cbnz x0, 1f\n"
      "mov x29, xzr\n"
      "mov x0, %[argument]\n"
      "blr %[entry]\n"
      "brk #1\n"
      "1:\n"
      : "+r"(x0)
      : "r"(x8), "r"(x1), "r"(x2), [entry] "r"(function), [argument] "r"(data)
      : "memory", "x3", "x4", "x30");
  result = x0;
#endif
  return result;
}

}  // namespace cloister
