// What would change the machine, and not only the sandbox: each is tried, and each succeeds (or gets as far as is safe) once its defence
// is taken away.
import type { Capability, SpawnOptions } from 'cloister';
import { describe, expect, test } from 'vitest';
import { needing } from '../helpers/lane.js';
import { type Attack, attempt, insides, successes } from './insides.js';

const with_ = (...capabilities: Capability[]): SpawnOptions => ({ capabilities });
/** Host root with that capability: only for calls that then fail for their arguments. */
const onHost = (...capabilities: Capability[]): SpawnOptions => ({ capabilities, namespaces: { user: 'host' } });
const perm = ['EPERM'];
const readonly = ['EROFS', 'EACCES', 'EPERM', 'ENOENT'];
const plainKernelFiles: SpawnOptions = { namespaces: { user: 'host' }, readonlyPaths: [], maskedPaths: [] };

const attacks: readonly Attack[] = [
  { name: 'set the time', question: ['settimeofday'], refused: perm, without: onHost('CAP_SYS_TIME'), freed: null },
  { name: 'set the clock', question: ['syscall', 'clock_settime', 0, 8], refused: ['EPERM', 'EFAULT'] },
  { name: 'restart the machine', question: ['syscall', 'reboot', 0, 0, 0, 0], refused: perm, without: with_('CAP_SYS_BOOT'), freed: 'EINVAL' },
  { name: 'load a kernel', question: ['syscall', 'kexec_load', 0, 0, 0, 255], refused: ['EPERM', 'ENOSYS'] },
  { name: 'load a module', question: ['syscall', 'init_module', 0, 0, 's:'], refused: ['EPERM', 'ENOSYS'] },
  { name: 'load a module from a file', question: ['syscall', 'finit_module', 0, 's:', 0], refused: ['EPERM', 'ENOSYS'] },
  { name: 'unload a module', question: ['syscall', 'delete_module', 's:none', 0], refused: ['EPERM', 'ENOSYS'] },
  { name: 'account processes', question: ['syscall', 'acct', 's:/none'], refused: ['EPERM', 'ENOSYS'] },
  {
    name: 'swap to a file',
    question: ['syscall', 'swapon', 's:/none', 0],
    refused: perm,
    without: { ...onHost('CAP_SYS_ADMIN'), seccomp: 'unconfined' },
    freed: 'ENOENT',
  },
  {
    name: 'take swap away',
    question: ['syscall', 'swapoff', 's:/none'],
    refused: perm,
    without: { ...onHost('CAP_SYS_ADMIN'), seccomp: 'unconfined' },
    freed: 'ENOENT',
  },
  { name: 'read by handle', question: ['syscall', 'open_by_handle_at', -100, 8, 0], refused: ['EPERM', 'EFAULT'] },
  { name: 'raw packets', question: ['socket', 'packet', 'raw', 3], refused: ['EAFNOSUPPORT'], without: with_('CAP_NET_RAW'), freed: null },
  { name: 'raw internet packets', question: ['socket', 'inet', 'raw', 1], refused: perm, without: with_('CAP_NET_RAW'), freed: null },
  { name: 'name the host', question: ['sethostname', 'x'], refused: perm, without: with_('CAP_SYS_ADMIN'), freed: null },
  { name: 'change the root', question: ['chroot', '/tmp'], refused: perm, without: with_('CAP_SYS_CHROOT'), freed: null },
  { name: 'mount', question: ['mount', 'none', '/tmp', 'tmpfs', 0], refused: perm, without: with_('CAP_SYS_ADMIN'), freed: null },
  { name: 'mount proc anew', question: ['mount', 'none', '/tmp', 'proc', 0], refused: perm, without: with_('CAP_SYS_ADMIN') },
  { name: 'mount sysfs anew', question: ['mount', 'none', '/tmp', 'sysfs', 0], refused: perm, without: with_('CAP_SYS_ADMIN') },
  { name: 'mount cgroup v1, for its release_agent', question: ['mount', 'none', '/tmp', 'cgroup', 0, 'rdma'], refused: perm },
  { name: 'mount what is a file of the host', question: ['mount', '/dev/vda', '/tmp', 'ext4', 0], refused: perm },
  { name: 'make a mount writable', question: ['mount', 'none', '/proc/sys', 'none', 0x1020], refused: perm },
  { name: 'uncover /proc/kcore', question: ['umount', '/proc/kcore', 2], refused: ['EPERM', 'ENOENT'] },
  { name: 'uncover /sys/firmware', question: ['umount', '/sys/firmware', 2], refused: perm },
  { name: 'make a disk', question: ['mknod', '/tmp/disk', 'b', 8, 0], refused: perm, without: onHost('CAP_MKNOD'), freed: null },
  { name: 'make a memory', question: ['mknod', '/tmp/mem', 'c', 1, 1], refused: perm, without: onHost('CAP_MKNOD'), freed: null },
  { name: 'leave namespaces by /proc/1', question: ['setns', '/proc/1/ns/mnt', 'mnt'], refused: ['EPERM', 'EACCES'] },
  { name: 'enter the network of another', question: ['setns', '/proc/self/ns/net', 'net'], refused: perm, without: with_('CAP_SYS_ADMIN'), freed: null },
  { name: 'give itself capabilities', question: ['syscall', 'prctl', 47, 2, 21, 0, 0], refused: perm },
  { name: 'drop to more', question: ['setuid', 1], refused: ['EPERM', 'EINVAL'], without: onHost('CAP_SETUID'), freed: null },
  { name: 'take a group', question: ['setgroups', 0], refused: perm },
  { name: 'core_pattern', question: ['open', '/proc/sys/kernel/core_pattern', 'w'], refused: readonly, without: plainKernelFiles, freed: null },
  { name: 'modprobe', question: ['open', '/proc/sys/kernel/modprobe', 'w'], refused: readonly },
  { name: 'binfmt_misc', question: ['open', '/proc/sys/fs/binfmt_misc/register', 'w'], refused: readonly },
  { name: 'sysrq', question: ['open', '/proc/sysrq-trigger', 'w'], refused: readonly },
  { name: 'forward packets of the host', question: ['open', '/proc/sys/net/ipv4/ip_forward', 'w'], refused: readonly, without: plainKernelFiles, freed: null },
  { name: 'uevent_helper', question: ['open', '/sys/kernel/uevent_helper', 'w'], refused: readonly },
  { name: 'turn a processor off', question: ['open', '/sys/devices/system/cpu/cpu1/online', 'w'], refused: readonly },
  { name: 'the memory of the machine', question: ['open', '/dev/mem', 'r'], refused: ['ENOENT'] },
  { name: 'the log of the kernel', question: ['open', '/dev/kmsg', 'r'], refused: ['ENOENT'] },
  { name: 'a disk of the host', question: ['open', '/dev/vda', 'r'], refused: ['ENOENT'] },
  { name: 'fuse', question: ['open', '/dev/fuse', 'rw'], refused: ['ENOENT'] },
  { name: 'a tunnel', question: ['open', '/dev/net/tun', 'rw'], refused: ['ENOENT'] },
  { name: 'virtual machines', question: ['open', '/dev/kvm', 'rw'], refused: ['ENOENT'] },
];

describe('is refused', () => {
  for (const { name, options } of insides) {
    test(`to ${name}`, async () => {
      expect(successes(attacks, await attempt(attacks, options))).toEqual([]);
    });
  }
});

describe('and is not, without its defence', () => {
  for (const { name, question, refused, without, freed } of attacks) {
    if (!without) continue;
    const isHost = without.namespaces?.user === 'host';
    needing(test, isHost ? ['root'] : [])(name, async () => {
      const answer = (await attempt([{ name, question, refused }], without)).get(name);
      if (freed === undefined) expect(refused).not.toContain(answer);
      else expect(answer).toBe(freed);
    });
  }
});
