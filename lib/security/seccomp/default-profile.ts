// What a program may ask of the kernel by default. docs/seccomp.md tells where and why this differs from Docker's profile, call by
// call; a test tries every number.

import { constants } from 'node:os';
import { capabilityNames } from '../capabilities.js';
import { action, type Comparison, type Policy, type Rule } from './policy.js';
import { nativeArchitecture } from './syscalls.js';

const words = (text: string): string[] => text.trim().split(/\s+/);

/** With any arguments. */
const allowed = words(`
  read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile splice tee vmsplice copy_file_range
  open openat openat2 creat close close_range dup dup2 dup3 fcntl flock fsync fdatasync sync syncfs sync_file_range
  truncate ftruncate fallocate fadvise64 readahead cachestat
  stat fstat lstat newfstatat statx statfs fstatfs statmount listmount access faccessat faccessat2 name_to_handle_at
  getcwd chdir fchdir getdents getdents64 mkdir mkdirat rmdir mknod mknodat rename renameat renameat2 link linkat unlink unlinkat
  symlink symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask
  utime utimes futimesat utimensat
  getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr listxattrat
  removexattr lremovexattr fremovexattr removexattrat
  pipe pipe2 select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
  eventfd eventfd2 signalfd signalfd4 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
  io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents

  bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt shutdown
  sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg

  brk mmap munmap mremap mprotect msync madvise mincore mlock mlock2 munlock mlockall munlockall remap_file_pages mseal
  pkey_alloc pkey_free pkey_mprotect memfd_create memfd_secret map_shadow_stack membarrier
  shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
  mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr

  fork vfork execve execveat exit exit_group wait4 waitid set_tid_address set_robust_list get_robust_list rseq
  futex futex_wait futex_wake futex_waitv futex_requeue restart_syscall arch_prctl prctl set_thread_area get_thread_area
  getpid getppid gettid getpgid getpgrp setpgid getsid setsid pidfd_open pidfd_send_signal process_mrelease
  kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo
  rt_sigreturn sigaltstack pause
  ptrace process_vm_readv process_vm_writev
  getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid
  setgroups capget capset
  getrlimit setrlimit prlimit64 getrusage getpriority setpriority ioprio_get ioprio_set sysinfo uname getcpu times getrandom
  sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam sched_getscheduler
  sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
  time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer adjtimex clock_adjtime
  timer_create timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime
  seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
  uretprobe riscv_flush_icache riscv_hwprobe
`);

/** Calls that a capability is for come with it. */
const withCapability: Readonly<Record<string, string>> = {
  BPF: 'bpf',
  DAC_READ_SEARCH: 'open_by_handle_at',
  PERFMON: 'perf_event_open',
  SYS_ADMIN: `bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
    lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd
    setdomainname sethostname setns syslog umount2 unshare`,
  SYS_BOOT: 'reboot',
  SYS_CHROOT: 'chroot',
  SYS_MODULE: 'delete_module finit_module init_module',
  SYS_NICE: 'get_mempolicy mbind set_mempolicy set_mempolicy_home_node',
  SYS_PACCT: 'acct',
  SYS_PTRACE: 'kcmp pidfd_getfd process_madvise',
  SYS_RAWIO: 'ioperm iopl',
  SYS_TIME: 'clock_settime settimeofday',
  SYS_TTY_CONFIG: 'vhangup',
  SYSLOG: 'syslog',
};

const { EPERM, ENOSYS, EAFNOSUPPORT } = constants.errno;
const allow = action.allow;
const deny = action.errno(EPERM);

/** The kernel reads the lower half of these arguments only, so what is above must not make a difference: socket(2), ioctl(2). */
const lowerHalf = (index: number, value: number): Comparison => ({ index, operator: '&', mask: 0xffffffffn, value: BigInt(value) });
const onlyIf = (...comparisons: Comparison[]): Rule[] => comparisons.map((comparison) => ({ when: [comparison], action: allow }));
const always = (answer: number): Rule => ({ when: [], action: answer });

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; clone(2) cannot make a time namespace. */
const namespaceFlags = 0x7e020000n;
const [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET] = [1, 2, 10, 16, 17];
const [TIOCSTI, TIOCLINUX] = [0x5412, 0x541c];
/** personality(2): PER_LINUX, PER_LINUX32, both with UNAME26; and the question what it is. */
const personalities = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff];

const has = (capabilities: bigint, name: string): boolean => ((capabilities >> BigInt((capabilityNames as readonly string[]).indexOf(name))) & 1n) === 1n;

/** For a program that may have these capabilities (bits as in the kernel's sets). */
export function defaultPolicy(capabilities: bigint): Policy {
  const families = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, ...(has(capabilities, 'NET_RAW') ? [AF_PACKET] : [])];
  const sockets = [...onlyIf(...families.map((family) => lowerHalf(0, family))), always(action.errno(EAFNOSUPPORT))];
  const calls = new Map<string, readonly Rule[]>([
    ...allowed.map((name): [string, Rule[]] => [name, [always(allow)]]),
    ['socket', sockets],
    ['socketpair', sockets],
    ['personality', onlyIf(...personalities.map((value) => lowerHalf(0, value)))],
    // Input for a terminal's next reader, and the console's menu: ioctl_tty(2). Both have led out of sandboxes (CVE-2017-5226, CVE-2023-1523).
    ['ioctl', [...[TIOCSTI, TIOCLINUX].map((request) => ({ when: [lowerHalf(1, request)], action: deny })), always(allow)]],
    ['clone', onlyIf({ index: 0, operator: '&', mask: namespaceFlags, value: 0n })],
    // Its flags are in memory, which a filter cannot read. libc then takes clone(2).
    ['clone3', [always(action.errno(ENOSYS))]],
    // As a kernel without them says, so that whoever has another way takes it.
    ...['modify_ldt', 'file_getattr', 'file_setattr'].map((name): [string, Rule[]] => [name, [always(action.errno(ENOSYS))]]),
  ]);
  for (const [capability, names] of Object.entries(withCapability)) {
    if (has(capabilities, capability)) for (const name of words(names)) calls.set(name, [always(allow)]);
  }
  return { calls, otherwise: deny, unknown: action.errno(ENOSYS), foreign: action.errno(ENOSYS), architectures: [nativeArchitecture] };
}
