// Causes that are on other people's hosts, told from what is read there.
import { describe, expect, test } from 'vitest';
import { adviceFor, chrootAdvice, type Refusal } from '../../lib/host/hints.js';
import * as k from '../../lib/plan/constants.js';

type Facts = Readonly<Record<string, string>>;
const ordinary: Facts = {
  '/proc/self/status': 'Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nSeccomp:\t0\n',
  '/proc/self/mountinfo': '22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n23 22 0:21 / /proc rw - proc proc rw\n24 22 0:22 / /sys rw - sysfs sysfs rw\n',
};
const clone: Refusal = { step: 'make the namespaces', syscall: 'clone3', errno: k.EPERM, path: undefined, cloneFlags: k.CLONE_NEWUSER | k.CLONE_NEWNET };

const advise = (refusal: Partial<Refusal>, facts: Facts = {}): string => {
  const advice = adviceFor({ ...clone, ...refusal }, (path) => ({ ...ordinary, ...facts })[path]?.trim());
  return advice ? [advice.what, advice.hint, ...(advice.evidence ?? []).map((line) => `- ${line}`)].filter(Boolean).join('\n') : 'no advice';
};

test('a refusal that nothing explains is not explained', () => {
  expect(advise({})).toBe('no advice');
  expect(advise({ syscall: 'chdir', errno: 5, step: 'anything' })).toBe('no advice');
});

describe('user namespaces', () => {
  test('kernel.unprivileged_userns_clone is 0', () => {
    expect(advise({}, { '/proc/sys/kernel/unprivileged_userns_clone': '0\n' })).toMatchInlineSnapshot(`
      "user namespaces are switched off for ordinary users
      sysctl -w kernel.unprivileged_userns_clone=1 (as root) switches them on, or run as root.
      - /proc/sys/kernel/unprivileged_userns_clone is 0"
    `);
    expect(advise({}, { '/proc/sys/kernel/unprivileged_userns_clone': '1\n' })).toBe('no advice');
  });

  const ubuntu = { '/proc/sys/kernel/apparmor_restrict_unprivileged_userns': '1\n', '/proc/self/attr/apparmor/current': 'unprivileged_userns (enforce)\n' };
  test.each([
    ['clone3', 'make the namespaces', k.EPERM],
    ['write', 'write uid_map', k.EPERM],
    ['openat', 'write setgroups', k.EACCES],
    ['mount_setattr', 'cut off mount propagation', k.EACCES],
  ])('AppArmor takes the capabilities: %s', (syscall, step, errno) => {
    expect(advise({ syscall, step, errno }, ubuntu)).toContain('AppArmor');
  });
  test('AppArmor, in words', () => {
    expect(advise({ syscall: 'write', step: 'write uid_map' }, ubuntu)).toMatchInlineSnapshot(`
      "AppArmor takes the capabilities of an ordinary user's user namespaces away
      Give this Node binary an AppArmor profile with \`userns,\` (docs/errors.md has one), or, for all programs, sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (as root).
      - /proc/sys/kernel/apparmor_restrict_unprivileged_userns is 1
      - this process has the profile unprivileged_userns (enforce)"
    `);
    expect(advise({ syscall: 'openat', step: 'read a file', errno: k.ENOENT }, ubuntu)).toBe('no advice');
  });

  test('a limit that is 0, and one that is used up', () => {
    expect(advise({ errno: 28 }, { '/proc/sys/user/max_user_namespaces': '0', '/proc/sys/user/max_net_namespaces': '0' })).toMatchInlineSnapshot(`
      "user.max_user_namespaces, user.max_net_namespaces are 0
      sysctl -w user.max_user_namespaces=10000 user.max_net_namespaces=10000 (as root) allows them.
      - /proc/sys/user/max_user_namespaces is 0
      - /proc/sys/user/max_net_namespaces is 0"
    `);
    expect(advise({ errno: 28 }, { '/proc/sys/user/max_user_namespaces': '63000', '/proc/sys/user/max_net_namespaces': '100' })).toMatchInlineSnapshot(`
      "a limit of namespaces has been reached, here or in a user namespace above (or user namespaces are nested 32 deep)
      End some sandboxes, or raise user.max_user_namespaces, user.max_net_namespaces.
      - /proc/sys/user/max_user_namespaces is 63000
      - /proc/sys/user/max_net_namespaces is 100"
    `);
    expect(advise({ errno: 87 }, {})).toMatchInlineSnapshot(`
      "a limit of namespaces has been reached, here or in a user namespace above (or user namespaces are nested 32 deep)
      End some sandboxes, or raise user.max_user_namespaces, user.max_net_namespaces."
    `);
    // One that is not asked for is not the cause.
    expect(advise({ errno: 28 }, { '/proc/sys/user/max_ipc_namespaces': '0' })).not.toContain('ipc');
  });

  test('root without capabilities', () => {
    expect(
      advise({ syscall: 'write', step: 'write uid_map' }, { '/proc/self/status': 'Uid:\t0\t0\t0\t0\nCapEff:\t0000000000000000\n' }),
    ).toMatchInlineSnapshot(`
      "root without CAP_SETFCAP may not map itself into a user namespace
      Run as another user, or keep that capability (docker run --cap-add=SETFCAP).
      - /proc/self/status has uid 0 and CapEff 0000000000000000"
    `);
    expect(advise({ syscall: 'write', step: 'write uid_map' })).toBe('no advice');
  });

  test('none asked for, and no right to do without', () => {
    expect(advise({ cloneFlags: k.CLONE_NEWNET })).toMatchInlineSnapshot(`
      "only root may make namespaces without a user namespace that owns them
      Leave namespaces.user as it is by default ('new'), or run as root.
      - /proc/self/status has CapEff 0000000000000000, without CAP_SYS_ADMIN"
    `);
    expect(advise({ cloneFlags: k.CLONE_NEWNET }, { '/proc/self/status': 'CapEff:\t0000000000200000\n' })).toBe('no advice');
  });

  test('a chroot', () => {
    const mountinfo = '30 22 8:1 /usr /usr rw - ext4 /dev/sda1 rw\n';
    expect(advise({}, { '/proc/self/mountinfo': mountinfo })).toMatchInlineSnapshot(`
      "this process lives in a chroot, where the kernel makes no user namespace
      Enter the directory by pivot_root instead of chroot, or run outside of it.
      - /proc/self/mountinfo has no mount at /"
    `);
    expect(chrootAdvice(() => mountinfo)?.what).toContain('chroot');
    expect(chrootAdvice(() => undefined)).toBeUndefined();
    expect(chrootAdvice(() => ordinary['/proc/self/mountinfo'])).toBeUndefined();
  });
});

describe('an outer filter', () => {
  const filtered = { '/proc/self/status': 'Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nSeccomp:\t2\n' };
  test('in words', () => {
    expect(advise({ errno: 38 }, filtered)).toMatchInlineSnapshot(`
      "a system call filter around this process refuses clone3
      Run the container with a seccomp profile that allows clone3, unshare, setns and the mount calls (docker run --security-opt seccomp=unconfined, and systempaths=unconfined for /proc).
      - /proc/self/status has Seccomp: 2: a filter was put on this process from outside"
    `);
    expect(advise({ syscall: 'fsopen' }, { ...filtered, '/.dockerenv': '' })).toContain('(a Docker container) refuses fsopen');
    expect(advise({ syscall: 'setns' }, { ...filtered, '/run/.containerenv': '' })).toContain('(a Podman container) refuses setns');
  });
  test('is not blamed for what no filter does', () => {
    expect(advise({ syscall: 'write', step: 'write uid_map' }, filtered)).toBe('no advice');
    expect(advise({ errno: 12 }, filtered)).toBe('no advice');
  });
});

describe('a covered /proc or /sys', () => {
  const mount = { syscall: 'fsmount', step: 'mount /proc', path: '/proc' };
  const lines = (...more: string[]): Facts => ({ '/proc/self/mountinfo': [ordinary['/proc/self/mountinfo']?.trim(), ...more, ''].join('\n') });
  test('as Docker covers it', () => {
    expect(advise(mount, lines('40 23 0:50 / /proc/kcore rw - tmpfs tmpfs rw', '41 23 0:21 /sys /proc/sys ro - proc proc rw'))).toMatchInlineSnapshot(`
      "a new /proc would show what is covered in the present one
      Something is mounted over parts of /proc, as container engines do: run this container with unmasked paths (docker run --security-opt systempaths=unconfined; podman --security-opt unmask=ALL).
      - /proc/kcore is mounted over
      - /proc/sys is mounted over"
    `);
  });
  test('what systemd mounts there is nothing', () => {
    expect(advise(mount, lines('40 23 0:50 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw'))).not.toContain('binfmt_misc');
    expect(advise({ ...mount, step: 'mount /sys', path: '/sys' }, lines('40 24 0:50 / /sys/fs/cgroup rw - cgroup2 cgroup rw'))).not.toContain('/sys/fs/cgroup');
  });
  test('a read-only /sys', () => {
    expect(
      advise(
        { ...mount, step: 'mount /sys', path: '/sys' },
        { '/proc/self/mountinfo': '22 1 8:1 / / rw - ext4 /dev/sda1 rw\n24 22 0:22 / /sys ro,relatime - sysfs sysfs ro\n' },
      ),
    ).toMatchInlineSnapshot(`
      "a new /sys would show what is covered in the present one
      /sys must be mounted, and writable, where the user namespace is made: here it is read-only.
      - /proc/self/mountinfo has 1 mounts at /sys"
    `);
  });
  test('no /proc at all', () => {
    expect(advise(mount, { '/proc/self/mountinfo': '22 1 8:1 / / rw - ext4 /dev/sda1 rw\n' })).toMatchInlineSnapshot(`
      "a new /proc would show what is covered in the present one
      /proc must be mounted, and writable, where the user namespace is made.
      - /proc/self/mountinfo has 0 mounts at /proc"
    `);
  });
});

test('owners of namespaces that do not agree', () => {
  expect(advise({ syscall: 'setns', step: 'join the net namespace' })).toMatchInlineSnapshot(`
    "another user namespace owns it than the one that is entered
    Namespaces that are joined together need one owner: Namespace.create(type, { owner })."
  `);
  expect(advise({ syscall: 'fsconfig', step: 'mount /proc', path: '/proc' })).toMatchInlineSnapshot(`
    "the pid namespace is owned by another user namespace than the one that is entered
    Join the owner of the pid namespace as well: { namespaces: { pid, user: await pid.owner() } }."
  `);
  expect(advise({ syscall: 'fsconfig', step: 'mount /proc', path: '/proc', errno: k.EINVAL })).toMatchInlineSnapshot(`
    "this kernel cannot mount /proc of a pid namespace that is joined from outside; Linux 6.17 can
    Join the user namespace that owns it as well, if that is not the host's; or use { namespaces: { pid, user: 'host' } }."
  `);
});

test('layers', () => {
  expect(advise({ syscall: 'fsconfig', step: 'mount the overlay', errno: k.EINVAL })).toMatchInlineSnapshot(`
    "the kernel refuses these layers
    A layer must be a directory on a file system that can be one (not an overlay on an overlay on an overlay), and no layer may be part of another. \`dmesg\` has the reason."
  `);
  expect(advise({ syscall: 'fsconfig', step: 'mount the overlay', errno: 40 })).toMatchInlineSnapshot(`
    "two of the layers are the same directory, or one lies in another
    No layer may be part of another."
  `);
  expect(advise({ syscall: 'fsconfig', step: 'use the writable layer', errno: 40 })).toMatchInlineSnapshot(`
    "the writable layer is one of the layers, or lies in one
    Use a directory of its own as upper."
  `);
});

test('owners that cannot be mapped', () => {
  const refusal = { syscall: 'mount_setattr', errno: k.EINVAL, path: '/x' };
  expect(['use a layer', 'bind', 'cut off mount propagation'].map((step) => advise({ ...refusal, step }))).toMatchInlineSnapshot(`
    [
      "its file system cannot map owners (idmapped mounts)
    Use a copy on another one (ext4, xfs, btrfs; tmpfs since Linux 6.3), or idMap: 'self' if root inside may be root of this host by its id.",
      "its file system cannot map owners (idmapped mounts)
    Bind it without \`idMap\`: owners that the sandbox does not have appear as nobody.",
      "no advice",
    ]
  `);
  expect(advise({ ...refusal, step: 'use a layer', errno: k.EPERM })).toBe('no advice');
});

test('no transparent proxy', () => {
  const refusal = { step: 'intercept what is sent', syscall: 'sendto', errno: k.ENOENT };
  expect(advise(refusal)).toMatchInlineSnapshot(`
    "this kernel has no nf_tables with tproxy, which egress is decided by
    As root, \`modprobe -a nf_tables nft_tproxy\` (CONFIG_NFT_TPROXY); without \`egress\`, nothing leaves a sandbox either."
  `);
  expect([advise({ ...refusal, errno: k.EPERM }), advise({ ...refusal, step: 'route everything to this process' })]).toEqual(['no advice', 'no advice']);
});

test('what it is continues the message, and what to do is a sentence', () => {
  const all = [
    advise({}, { '/proc/sys/kernel/unprivileged_userns_clone': '0' }),
    advise({ errno: 28 }),
    advise({ syscall: 'chdir', step: 'enter the working directory', path: '/x', errno: k.ENOENT }),
    advise({ syscall: 'prlimit64', step: 'set a resource limit', path: 'RLIMIT_CPU' }),
    advise({ syscall: 'move_mount', step: 'mount bind', path: '/x', errno: k.EINVAL }),
  ];
  for (const text of all) {
    const [what = '', hint = ''] = text.split('\n');
    expect(what).toMatch(/[^.]$/);
    expect(hint).toMatch(/[.)]$/);
  }
});
