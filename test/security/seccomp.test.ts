// What the filter of system calls keeps from the kernel: each tried under the default profile, and without it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { SpawnOptions } from 'cloister';
import { describe, expect, onTestFinished, test } from 'vitest';
import { nativeArchitecture, syscallNumbers } from '../../lib/security/seccomp/syscalls.js';
import { testNeeding } from '../helpers/lane.js';
import { ask, askFully, type Question } from '../helpers/probe.js';

const open: SpawnOptions = { seccomp: 'unconfined' };

/** The last answer's errno. */
async function outcome(questions: readonly Question[], options: SpawnOptions = {}): Promise<string | null | undefined> {
  return (await ask(questions, options)).at(-1)?.errno;
}

/** By name: 0 where the call would reach the kernel, else the filter's errno. Nothing is called. */
async function answersTo(names: readonly string[], options: SpawnOptions = {}, ...args: number[]): Promise<Record<string, number>> {
  const [{ answers }] = await ask([['filter-answers', 0, 512, ...args]], options);
  const known = names.filter((name) => syscallNumbers(nativeArchitecture).has(name));
  return Object.fromEntries(known.map((name) => [name, answers[syscallNumbers(nativeArchitecture).get(name) as number] as number]));
}

const inside: readonly (readonly [attack: string, questions: readonly Question[], denied: string, otherwise: readonly (string | null)[]])[] = [
  // EPERM where kernel.io_uring_disabled is set, ENOSYS without CONFIG_IO_URING.
  ['io_uring', [['syscall', 'io_uring_setup', 1, 0]], 'EPERM', ['EFAULT', 'ENOSYS']],
  ['io_uring_enter', [['syscall', 'io_uring_enter', 999, 1, 0, 0]], 'EPERM', ['EBADF', 'ENOSYS']],
  ['userfaultfd', [['syscall', 'userfaultfd', 1]], 'EPERM', [null, 'ENOSYS']],
  ['bpf', [['syscall', 'bpf', 7, 's:x', 8192]], 'EPERM', ['E2BIG', 'ENOSYS']],
  ['perf events', [['syscall', 'perf_event_open', 0, 0, -1, -1, 0]], 'EPERM', ['EFAULT', 'EACCES', 'ENOSYS']],
  ['the keyring of a session', [['keyctl-session']], 'EPERM', [null]],
  ['a key', [['syscall', 'add_key', 's:user', 's:name', 's:secret', 6, -3]], 'EPERM', [null]],
  ['asking for a key', [['syscall', 'request_key', 's:user', 's:none', 0, 0]], 'EPERM', ['ENOKEY']],
  ['a user namespace, by unshare', [['unshare', 'user']], 'EPERM', [null]],
  ['a user namespace, by clone', [['syscall', 'clone', 0x10000011]], 'EPERM', [null]],
  ['any namespace, by clone3', [['syscall', 'clone3', 's:........', 8]], 'ENOSYS', ['EINVAL']],
  [
    'a mount, as root of a user namespace',
    [
      ['unshare', 'user,mnt'],
      ['mount', 'none', '/tmp', 'tmpfs', 0],
    ],
    'EPERM',
    [null],
  ],
  [
    'a file system, as root of a user namespace',
    [
      ['unshare', 'user,mnt'],
      ['syscall', 'fsopen', 's:tmpfs', 0],
    ],
    'EPERM',
    [null],
  ],
  ['a tree of mounts', [['syscall', 'open_tree', -100, 's:/', 0]], 'EPERM', [null]],
  [
    'another root',
    [
      ['unshare', 'user,mnt'],
      ['syscall', 'pivot_root', 's:/tmp', 's:/tmp'],
    ],
    'EPERM',
    ['EBUSY', 'EINVAL'],
  ],
  [
    'a changed root',
    [
      ['unshare', 'user'],
      ['chroot', '/tmp'],
    ],
    'EPERM',
    [null],
  ],
  ['input for a terminal', [['syscall', 'ioctl', 0, 0x5412, 's:x']], 'EPERM', ['ENOTTY']],
  ['the same, with a bit above those that the kernel reads', [['syscall', 'ioctl', 0, 0x100005412, 's:x']], 'EPERM', ['ENOTTY']],
  ['the menu of a console', [['syscall', 'ioctl', 0, 0x541c, 's:x']], 'EPERM', ['ENOTTY']],
  ['a layout without randomness', [['syscall', 'personality', 0x40000]], 'EPERM', [null]],
  ['memory of a process, by policy', [['syscall', 'mbind', 0, 0, 99, 0, 0, 0]], 'EPERM', ['EINVAL']],
  ['pages of a process', [['syscall', 'move_pages', 0, 0, 0, 0, 0, 99]], 'EPERM', ['EINVAL']],
  ['comparing processes', [['syscall', 'kcmp', 1, 1, 99, 0, 0]], 'EPERM', ['EINVAL', 'ENOSYS']],
  ['a descriptor of another process', [['syscall', 'pidfd_getfd', 999, 0, 0]], 'EPERM', ['EBADF']],
];

describe('kept from the kernel', () => {
  for (const [attack, questions, denied, otherwise] of inside) {
    test(attack, async () => {
      expect(await outcome(questions)).toBe(denied);
      expect(otherwise).toContain(await outcome(questions, open));
    });
  }

  // What succeeds would harm the host, and what the kernel says to whoever has no right to it is EPERM as well: so these are not made.
  const harmful = `kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff quotactl quotactl_fd acct settimeofday
    clock_settime iopl ioperm open_by_handle_at fanotify_init migrate_pages vhangup mount umount2 sethostname setdomainname
    process_madvise syslog setns move_mount fsmount fsconfig fspick mount_setattr open_tree_attr`.split(/\s+/);

  test('modules, kexec, reboot, swap, quota, time and more: none reaches it', async () => {
    const denied = await answersTo(harmful);
    expect(Object.entries(denied).filter(([, errno]) => errno !== 1)).toEqual([]);
    expect(Object.keys(denied).length).toBeGreaterThan(25);
    const reached = await answersTo(harmful, open);
    expect(Object.entries(reached).filter(([, errno]) => errno !== 0)).toEqual([]);
  });

  test('sockets of every family but four, whatever is above the bits that the kernel reads', async () => {
    // linux/socket.h: none, UNIX, INET, X25, INET6, NETLINK, PACKET, RDS, CAN, TIPC, ALG, NFC, VSOCK, QIPCRTR, XDP.
    const families = [0, 1, 2, 9, 10, 16, 17, 21, 29, 30, 38, 39, 40, 42, 44];
    const allowed = async (options: SpawnOptions, above: number): Promise<number[]> => {
      const answers = await Promise.all(families.map((family) => answersTo(['socket', 'socketpair'], options, family + above)));
      return families.filter((_, index) => {
        const { socket, socketpair } = answers[index] as Record<string, number>;
        expect([0, 97]).toContain(socket);
        expect(socketpair).toBe(socket);
        return socket === 0;
      });
    };
    expect(await allowed({}, 0)).toEqual([1, 2, 10, 16]);
    expect(await allowed({}, 2 ** 32)).toEqual([1, 2, 10, 16]);
    expect(await allowed({ capabilities: ['CAP_NET_RAW'] }, 0)).toEqual([1, 2, 10, 16, 17]);
    expect(await allowed(open, 0)).toEqual(families);
  });

  test.runIf(process.arch === 'x64')('calls by the way of 32-bit programs', async () => {
    // ENOEXEC: this kernel has no such way.
    const without = await outcome([['call-by-32-bits']], open);
    expect([null, 'ENOEXEC']).toContain(without);
    expect(await outcome([['call-by-32-bits']])).toBe(without ?? 'ENOSYS');
    const both = { defaultAction: 'SCMP_ACT_ALLOW', architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'] };
    expect([null, 'ENOEXEC']).toContain(await outcome([['call-by-32-bits']], { seccomp: both }));
  });
});

describe('is not got rid of', () => {
  test('by a program that it executes, nor by a filter that allows more', async () => {
    const { answers } = await askFully([['exec', '/probe/probe', 'keyctl-session']]);
    expect(answers).toEqual([]);
    const { result } = await askFully([['exec', '/probe/probe', 'keyctl-session']]);
    expect(result.stdout).toContain('"errno":"EPERM"');
    const stacked = await askFully([['seccomp-deny', 'getcwd', 'EACCES', '--', '/probe/probe', 'keyctl-session', '--', 'status']]);
    expect(stacked.result.stdout).toContain('"errno":"EPERM"');
    expect(stacked.result.stdout).toContain('"seccompFilters":2');
  });

  test('by strict mode, which is another one', async () => {
    // PR_SET_SECCOMP, SECCOMP_MODE_STRICT: whoever has a filter cannot change the mode.
    expect(await outcome([['syscall', 'prctl', 22, 1, 0, 0, 0]])).toBe('EINVAL');
  });

  test.runIf(process.arch === 'x64')('by a tracer that makes another call of one that was allowed', async () => {
    expect(await outcome([['traced-syscall', 'keyctl', 0, -3]])).toBe('EPERM');
    expect(await outcome([['traced-syscall', 'keyctl', 0, -3]], open)).toBe(null);
  });

  test('by reading the program back', async () => {
    // PTRACE_SECCOMP_GET_FILTER of a process that is not traced is ESRCH anyway; it is for CAP_SYS_ADMIN outside of all filters.
    expect(await outcome([['syscall', 'ptrace', 0x420c, 1, 0, 0]])).not.toBe(null);
  });
});

describe('processes of the host', () => {
  const outsider = async (): Promise<number> => {
    const child = spawn('sleep', ['100'], { stdio: 'ignore' });
    onTestFinished(() => void child.kill('SIGKILL'));
    await once(child, 'spawn');
    return child.pid as number;
  };
  const attempts = (pid: number): readonly (readonly Question[])[] => [[['ptrace', pid]], [['syscall', 'pidfd_open', pid, 0]], [['kill', pid, 'SIGCONT']]];

  test('have no number inside', async () => {
    const pid = await outsider();
    for (const attempt of attempts(pid)) expect(await outcome(attempt)).toBe('ESRCH');
  });

  testNeeding(['root'])('would be open to root of the same namespaces', async () => {
    const pid = await outsider();
    const options: SpawnOptions = { namespaces: { pid: 'host', user: 'host' }, capabilities: ['CAP_SYS_PTRACE'] };
    const outcomes: unknown[] = [];
    for (const attempt of attempts(pid)) outcomes.push(await outcome(attempt, options));
    expect(outcomes).toEqual([null, null, null]);
  });
});
