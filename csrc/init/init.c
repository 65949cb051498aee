// PID 1 of a sandbox started with `init: true`: starts the program, reaps orphans, says how the program ended. It runs from a
// sealed memfd, already confined as the program will be, and uses no libc: it must run in any root.
//
//   cloister-init STATUS_FD PIDFD_SOCKET TTY LABEL COUNT PATH… ARGV…      (COUNT paths to try, in order)
//   cloister-init                                                    only keeps its namespaces alive
// LABEL is the program's context of SELinux, or empty; with one, the host's /proc is PIDFD_SOCKET + 1. The program takes it by its exec, which
// takes its death signal away: this one keeps both its label and its signal.
//
// What it writes to STATUS_FD, all in this machine's byte order:
//   'S'                                          the program has been executed
//   'E' i32 errno, i32 candidate, u32 size, head it could not be; candidate -1: it could not be given its label
//   'X' i32 code, i32 signal, i64 user µs, i64 system µs, i64 max RSS KiB     it has ended
// The program's pidfd goes to PIDFD_SOCKET before 'S'.

#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/resource.h>
#include <linux/socket.h>
#include <linux/wait.h>
#include <stdint.h>
#include <sys/syscall.h>

#define SIGCHLD 17
#define PR_SET_DUMPABLE 4
#define SCM_RIGHTS 1
#define SOL_SOCKET_LEVEL 1
#define MSG_NOSIGNAL_FLAG 0x4000

static long call(long number, long a, long b, long c, long d, long e) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
#endif
}

static void leave(int code) {
  for (;;) call(SYS_exit_group, code, 0, 0, 0, 0);
}

static int number(const char* text) {
  int value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (*text++ - '0');
  return value;
}

static void put(int fd, const void* bytes, long size) {
  while (call(SYS_write, fd, (long)bytes, size, 0, 0) == -EINTR) {
  }
}

// Copies by hand: without libc there is no memcpy, and the compiler must not invent a call to it (-ffreestanding may).
static void copy(volatile uint8_t* to, const void* from, int size) {
  for (int i = 0; i < size; i++) to[i] = ((const uint8_t*)from)[i];
}

static void send_own_pidfd(int socket) {
  const long self = call(SYS_getpid, 0, 0, 0, 0, 0);
  const int fd = (int)call(SYS_pidfd_open, self, 0, 0, 0, 0);
  if (fd < 0) return;
  uint8_t byte = 0;
  struct {
    void* base;
    unsigned long length;
  } data = {&byte, 1};
  struct {
    unsigned long length;
    int level, type, fd, padding;
  } control = {sizeof(unsigned long) + 3 * sizeof(int), SOL_SOCKET_LEVEL, SCM_RIGHTS, fd, 0};
  struct {
    void* name;
    int name_length;
    void* data;
    unsigned long data_length;
    void* control;
    unsigned long control_length;
    int flags;
  } message = {0, 0, &data, 1, &control, sizeof(control), 0};
  call(SYS_sendmsg, socket, (long)&message, MSG_NOSIGNAL_FLAG, 0, 0);
  call(SYS_close, fd, 0, 0, 0, 0);
}

static void report_failure(int fd, int error, int candidate, const char* path) {
  static uint8_t record[1 + 12 + 1024];
  const int file = (int)call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0, 0);
  long size = file < 0 ? 0 : call(SYS_read, file, (long)(record + 13), 1024, 0, 0);
  if (size < 0) size = 0;
  const uint32_t head = (uint32_t)size;
  record[0] = 'E';
  copy(record + 1, &error, 4);
  copy(record + 5, &candidate, 4);
  copy(record + 9, &head, 4);
  put(fd, record, 13 + size);
}

// As the interpreter's exec (csrc/child/interpreter.cc): EACCES wins over ENOENT.
static void execute(int status, char** paths, int count, char** argv, char** envp) {
  int result = ENOENT, candidate = 0;
  for (int i = 0; i < count; i++) {
    const int error = -(int)call(SYS_execve, (long)paths[i], (long)argv, (long)envp, 0, 0);
    const int exists = error != ENOENT || call(SYS_faccessat, AT_FDCWD, (long)paths[i], 0, 0, 0) == 0;
    if (i == 0 || exists) {
      result = error;
      candidate = i;
    }
    if (exists && error != EACCES && error != ENOTDIR) break;
  }
  report_failure(status, result, candidate, paths[candidate]);
}

// proc_pid_attr_write: a task's own file only, and opened by itself.
static int take_label(int proc, const char* label) {
  const int file = (int)call(SYS_openat, proc, (long)"self/attr/exec", O_WRONLY | O_CLOEXEC, 0, 0);
  if (file < 0) return file;
  long length = 0;
  while (label[length] != 0) length++;
  const long written = call(SYS_write, file, (long)label, length, 0, 0);
  return written < 0 ? (int)written : 0;
}

static void run_program(int status, int started, int socket, int tty, const char* label, char** paths, int count,
                        char** argv, char** envp) {
  send_own_pidfd(socket);
  call(SYS_setsid, 0, 0, 0, 0, 0);
  if (tty) call(SYS_ioctl, 0, TIOCSCTTY, 0, 0, 0);
  const int refused = *label != 0 ? take_label(socket + 1, label) : 0;
  if (refused != 0)
    report_failure(status, -refused, -1, "");
  else
    execute(status, paths, count, argv, envp);
  // Anything but the end of the pipe means: not executed.
  put(started, "", 1);
  leave(127);
}

// Sleeps until a signal comes: that of a child that was reparented to us, too (SIGCHLD has to be taken to interrupt a sleep).
static void wait_for_orphans(void) {
  uint64_t chld = 1ull << (SIGCHLD - 1);
  call(SYS_rt_sigprocmask, 0, (long)&chld, 0, 8, 0);
  call(SYS_rt_sigtimedwait, (long)&chld, 0, 0, 8, 0);
}

__attribute__((used)) static void start(long* stack) {
  char** words = (char**)(stack + 1);
  char** envp = words + stack[0] + 1;
  // The program may have our uid: it must not look into us, nor we be the memory it writes to.
  call(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (stack[0] < 7) {
    for (;;)
      if (call(SYS_wait4, -1, 0, __WALL, 0, 0) == -ECHILD) wait_for_orphans();
  }
  const int status = number(words[1]), socket = number(words[2]), tty = number(words[3]), count = number(words[5]);
  const char* label = words[4];
  char** paths = words + 6;
  char** argv = paths + count;

  call(SYS_fcntl, status, F_SETFD, FD_CLOEXEC, 0, 0);
  call(SYS_fcntl, socket, F_SETFD, FD_CLOEXEC, 0, 0);
  if (*label != 0) call(SYS_fcntl, socket + 1, F_SETFD, FD_CLOEXEC, 0, 0);
  int pipe[2];
  if (call(SYS_pipe2, (long)pipe, O_CLOEXEC, 0, 0, 0) < 0) leave(126);

  const int program = (int)call(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  if (program < 0) {
    report_failure(status, -program, 0, "");
    leave(126);
  }
  if (program == 0) run_program(status, pipe[1], socket, tty, label, paths, count, argv, envp);

  call(SYS_close, socket, 0, 0, 0, 0);
  if (*label != 0) call(SYS_close, socket + 1, 0, 0, 0, 0);
  call(SYS_close, pipe[1], 0, 0, 0, 0);
  // The streams are the program's: who reads them waits for *its* end.
  for (int fd = 0; fd < status; fd++) call(SYS_close, fd, 0, 0, 0, 0);
  uint8_t byte;
  long size;
  while ((size = call(SYS_read, pipe[0], (long)&byte, 1, 0, 0)) == -EINTR) {
  }
  if (size == 0) put(status, "S", 1);
  call(SYS_close, pipe[0], 0, 0, 0, 0);

  for (;;) {
    int how = 0;
    struct rusage usage;
    const long pid = call(SYS_wait4, -1, (long)&how, __WALL, (long)&usage, 0);
    if (pid == -EINTR || (pid >= 0 && pid != program)) continue;
    uint8_t record[1 + 8 + 24];
    const int signal = how & 0x7f, code = signal ? -1 : how >> 8 & 0xff;
    const int64_t user = usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec;
    const int64_t system = usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec;
    const int64_t rss = usage.ru_maxrss;
    record[0] = 'X';
    copy(record + 1, &code, 4);
    copy(record + 5, &signal, 4);
    copy(record + 9, &user, 8);
    copy(record + 17, &system, 8);
    copy(record + 25, &rss, 8);
    put(status, record, sizeof(record));
    leave(0);
  }
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n  xor %ebp, %ebp\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n  mov x29, xzr\n  mov x0, sp\n  bl start\n");
#endif
