// What a program finds with no option given: docs/security.md, "What holds".
import { execFileSync } from 'node:child_process';
import { runIsolated } from 'cloister';
import { beforeAll, describe, expect, test } from 'vitest';
import { repository } from '../helpers/fixtures.js';
import { testNeeding } from '../helpers/lane.js';
import { type AnswersTo, ask, askHost, insideFixture, parseAnswer, startProbe, withFixtures } from '../helpers/probe.js';

const questions = [['report'], ['ping-lo'], ['keyctl-session']] as const;
let inside: AnswersTo<typeof questions>[0];
let loopback: AnswersTo<typeof questions>[1];
let outside: typeof inside;

beforeAll(async () => {
  [inside, loopback] = await ask(questions);
  [outside] = await askHost([['report']]);
});

describe('namespaces', () => {
  test('all are its own, but for the time', () => {
    const same = Object.entries(inside.namespaces).filter(([kind, inode]) => outside.namespaces[kind as 'net'] === inode);
    expect(same.map(([kind]) => kind)).toEqual(['time', 'time_for_children']);
  });

  test('the receipt says so', async () => {
    const { isolation } = await runIsolated(insideFixture('true'), withFixtures({}));
    expect(isolation.namespaces).toEqual({
      ...{ cgroup: 'new', ipc: 'new', mount: 'new', net: 'new', pid: 'new', time: 'host', user: 'new', uts: 'new' },
    });
    expect(isolation).toMatchObject({
      ...{ level: 'namespaces', capabilities: [], noNewPrivileges: true, network: 'none', missing: [] },
      root: { driver: 'overlay', readonly: false },
    });
  });

  test('only its own processes can be seen', () => {
    expect(inside.processes.map(({ pid, ppid, comm }) => ({ pid, ppid, comm }))).toEqual([{ pid: 1, ppid: 0, comm: 'probe' }]);
  });

  test('the host has the name of nobody', () => {
    expect(inside.hostname).toMatchObject({ hostname: 'cloister' });
  });

  test('control groups: its own is the top', () => {
    expect(new Set(inside.cgroup.map(({ path }) => path))).toEqual(new Set(['/']));
  });
});

describe('privileges', () => {
  test('no capability in any set', () => {
    const none = '0'.repeat(16);
    expect(inside.caps).toEqual({ inheritable: none, permitted: none, effective: none, bounding: none, ambient: none });
  });

  test('no way to get one', async () => {
    expect(inside.status.noNewPrivs).toBe(1);
    const answers = await ask([
      ['setuid', 1],
      ['setgid', 1],
      ['setgroups', 1],
      ['sethostname', 'x'],
      ['settimeofday'],
      ['chroot', '/tmp'],
      ['mount', 'none', '/tmp', 'tmpfs', 0],
      ['umount', '/proc'],
      ['unshare', 'net'],
      ['mknod', '/tmp/null', 'c', 1, 3],
      ['socket', 'inet', 'raw', 1],
    ]);
    // One of an ordinary user's two ids is no better than the other: the kernel says EINVAL for what has no name.
    expect(answers.filter(({ errno }) => errno !== 'EPERM' && errno !== 'EINVAL')).toEqual([]);
  });

  test('root inside, as nobody else outside', async () => {
    expect(inside.ids).toMatchObject({ ruid: 0, euid: 0, suid: 0, fsuid: 0, rgid: 0, egid: 0, sgid: 0, fsgid: 0 });
    // An ordinary user cannot give up its groups (setgroups is denied): its own is 0 inside, others have no name.
    const nameless = process.getuid?.() === 0 ? [65534] : [65534, 0];
    expect(inside.ids.groups.filter((group) => !nameless.includes(group))).toEqual([]);
  });

  testNeeding(['root'])('no supplementary group of the host', () => {
    expect(inside.ids.groups).toEqual([]);
  });

  testNeeding(['root'])('two that live at once have ids of their own, none of them of the host', async () => {
    const sandboxes = [0, 1, 2].map(() => startProbe(['ids', 'sleep']));
    try {
      const maps = await Promise.all(sandboxes.map(async ({ lines }) => parseAnswer('ids', await lines.next())));
      const starts = maps.flatMap(({ uidMap, gidMap }) => {
        expect(uidMap).toEqual(gidMap);
        expect(uidMap).toHaveLength(1);
        expect(uidMap[0]).toMatchObject({ inside: 0, count: 65536 });
        return uidMap.map(({ outside: start }) => start);
      });
      expect(new Set(starts).size).toBe(3);
      for (const start of starts) expect(start).toBeGreaterThanOrEqual(0x70000000);
      expect(starts.every((start) => start % 65536 === 0)).toBe(true);
    } finally {
      await Promise.all(sandboxes.map(({ process: box }) => box[Symbol.asyncDispose]()));
    }
  });

  testNeeding(['unprivileged'])('an ordinary user is itself, as root', () => {
    const [uid, gid] = [process.getuid?.(), process.getgid?.()];
    expect(inside.ids.uidMap[0]).toEqual({ inside: 0, outside: uid, count: 1 });
    expect(inside.ids.gidMap[0]).toEqual({ inside: 0, outside: gid, count: 1 });
  });
});

describe('what it was given', () => {
  test('descriptors 0, 1, 2, and no other', () => {
    expect(inside.fds.map(({ fd, type, access }) => ({ fd, type, access }))).toEqual([
      { fd: 0, type: 'fifo', access: 'r' },
      { fd: 1, type: 'fifo', access: 'w' },
      { fd: 2, type: 'fifo', access: 'w' },
    ]);
    expect(inside.fds.map(({ nonblocking }) => nonblocking)).toEqual([false, false, false]);
  });

  test('its streams can be opened by name', async () => {
    const answers = await ask([
      ['open', '/dev/stdout', 'w'],
      ['open', '/dev/stderr', 'w'],
      ['open', '/dev/stdin', 'r'],
    ]);
    expect(answers.map(({ errno }) => errno)).toEqual([null, null, null]);
  });

  test('the environment of nobody', () => {
    expect(inside.env).toEqual({
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/root',
      TERM: 'xterm',
      LANG: 'C.UTF-8',
    });
  });

  test('signals: none ignored, blocked or handled', () => {
    expect(inside.status).toMatchObject({ sigBlk: '0'.repeat(16), sigIgn: '0'.repeat(16), sigCgt: '0'.repeat(16) });
  });

  test('a session and a group of its own, and no terminal', () => {
    expect(inside.status).toMatchObject({ pid: 1, ppid: 0, sid: 1, pgid: 1 });
    expect(inside.tty).toMatchObject({ isatty: [false, false, false], controlling: null, openError: 'ENXIO' });
  });

  test('umask, directory, and the limits and the score of the caller', () => {
    expect(inside.status.umask).toBe('0022');
    expect(inside.cwd).toBe('/');
    expect(inside.rlimits).toEqual(outside.rlimits);
    expect(inside.oom).toEqual(outside.oom);
  });
});

describe('network', () => {
  test('only loopback, and it is up', () => {
    expect(inside.interfaces.map(({ name, up, addresses }) => ({ name, up, addresses }))).toEqual([
      { name: 'lo', up: true, addresses: ['127.0.0.1/8', '::1/128'] },
    ]);
    expect(loopback).toMatchObject({ ipv4: null, ipv6: null });
  });

  test('no way out', async () => {
    const [tcp, udp] = await ask([
      ['connect-tcp', '192.0.2.1', 80],
      ['send-udp', '192.0.2.1', 53, 'x'],
    ]);
    expect([tcp.errno, udp.errno]).toEqual(['ENETUNREACH', 'ENETUNREACH']);
  });
});

describe('files', () => {
  test('homes, /run and temporary directories are empty', async () => {
    const paths = ['/home', '/root', '/run', '/tmp', '/var/tmp'] as const;
    const answers = await ask(paths.map((path) => ['ls', path] as const));
    expect(answers.map((answer) => (answer as { entries?: string[] }).entries)).toEqual(paths.map(() => []));
  });

  // Of an overlay owners cannot be mapped: to root inside, what is in it then belongs to nobody, which the receipt says.
  testNeeding(process.geteuid?.() === 0 ? ['plain-root'] : [])('and can be written to', async () => {
    const answers = await ask(['/root', '/run', '/tmp', '/var/tmp', '/etc', '/usr'].map((path) => ['create', `${path}/new-file`, 'x'] as const));
    expect(answers.map(({ errno }) => errno)).toEqual(Array(6).fill(null));
  });

  testNeeding(['root', 'plain-root'])('and so can all that host root owns', async () => {
    const answers = await ask([
      ['create', '/usr/bin/new-file'],
      ['append', '/etc/passwd', 'x'],
      ['chmod', '600', '/etc/hosts'],
      ['mkdir', '/new-directory'],
    ]);
    expect(answers.map(({ errno }) => errno)).toEqual([null, null, null, null]);
    const [passwd, hosts] = await ask([
      ['stat', '/etc/passwd'],
      ['stat', '/usr/bin'],
    ]);
    expect([passwd, hosts]).toMatchObject([
      { uid: 0, gid: 0 },
      { uid: 0, gid: 0 },
    ]);
  });

  test('secrets of the host are not there', async () => {
    const answers = await ask(['/etc/shadow', '/etc/gshadow', '/etc/shadow-', '/etc/gshadow-'].map((path) => ['lstat', path] as const));
    expect(answers.map(({ errno }) => errno)).toEqual(Array(4).fill('ENOENT'));
    const [keys] = await ask([['ls', '/etc/ssl/private']]);
    expect(keys.entries ?? []).toEqual([]);
  });

  test('what is in /dev, to the last name', async () => {
    const [dev, shm, pts, mqueue] = await ask([
      ['ls', '/dev'],
      ['ls', '/dev/shm'],
      ['ls', '/dev/pts'],
      ['ls', '/dev/mqueue'],
    ]);
    expect(dev.entries).toEqual(['fd', 'full', 'mqueue', 'null', 'ptmx', 'pts', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'tty', 'urandom', 'zero']);
    expect([shm.entries, pts.entries, mqueue.entries]).toEqual([[], ['ptmx'], []]);
  });

  test('the devices are what they are called, and open', async () => {
    const names = ['null', 'zero', 'full', 'random', 'urandom', 'tty'] as const;
    const stats = await ask(names.map((name) => ['stat', `/dev/${name}`] as const));
    expect(stats.map((answer) => (answer as { rdev?: string }).rdev)).toEqual(['1:3', '1:5', '1:7', '1:8', '1:9', '5:0']);
    const opened = await ask(['/dev/null', '/dev/zero', '/dev/random', '/dev/urandom', '/dev/ptmx'].map((path) => ['open', path, 'rw'] as const));
    expect(opened.map(({ errno }) => errno)).toEqual([null, null, null, null, null]);
  });

  test('the kernel: masked, or read-only', async () => {
    const [sys, sysrq, ...rest] = await ask([
      ['create', '/proc/sys/kernel/core_pattern', 'x'],
      ['open', '/proc/sysrq-trigger', 'w'],
      ['open', '/proc/sys/net/ipv4/ip_forward', 'w'],
      ['open', '/sys/kernel/uevent_helper', 'w'],
      ['create', '/sys/x'],
    ]);
    // EACCES where the file's owner has no name inside is asked before the mount is.
    expect([sys, sysrq, ...rest].filter(({ errno }) => errno !== 'EROFS' && errno !== 'EACCES' && errno !== 'ENOENT')).toEqual([]);
    const masked = await ask(['/proc/kcore', '/proc/keys', '/proc/timer_list', '/proc/interrupts'].map((path) => ['stat', path] as const));
    for (const answer of masked) if (answer.errno !== 'ENOENT') expect(answer).toMatchObject({ type: 'char-device', rdev: '1:3' });
    const empty = await ask([
      ['ls', '/proc/acpi'],
      ['ls', '/proc/scsi'],
      ['ls', '/sys/firmware'],
    ]);
    for (const { errno, entries } of empty) if (errno !== 'ENOENT') expect(entries).toEqual([]);
  });

  test('no mount is shared with the host, nor a slave of one', () => {
    expect(inside.mounts.filter(({ propagation }) => propagation.length > 0)).toEqual([]);
    expect(inside.mounts.find(({ mountPoint }) => mountPoint === '/')?.fsType).toMatch(/^(overlay|tmpfs)$/);
  });

  testNeeding(['user-namespaces', 'program:unshare', 'program:setpriv'])('nor where all mounts of the host are shared, as with systemd', () => {
    const script = `
      import { OverlayRootfs, runIsolated } from 'cloister';
      const mounts = [{ type: 'bind', source: '/usr', target: '/data', readonly: true }];
      const shown = async (options) => {
        const { stdout } = await runIsolated('cat', ['/proc/self/mountinfo'], { mounts, ...options });
        return stdout.split('\\n').filter((line) => /shared:|master:/.test(line));
      };
      const own = (await runIsolated('cat', ['/proc/self/mountinfo'], { namespaces: { mount: 'host' } })).stdout;
      const rootfs = await OverlayRootfs.host();
      console.log(JSON.stringify([/shared:/.test(own), await shown({}), await shown({ rootfs })]));
      await rootfs[Symbol.asyncDispose]();`;
    const stdout = execFileSync(
      'unshare',
      [
        '--user',
        '--map-root-user',
        '--mount',
        '--propagation',
        'shared',
        'setpriv',
        '--bounding-set=-all,+setfcap',
        process.execPath,
        '--input-type=module',
        '-e',
        script,
      ],
      {
        encoding: 'utf8',
        cwd: repository,
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    const [first = ''] = stdout.split('\n');
    expect(JSON.parse(first)).toEqual([true, [], []]);
  });

  test('each mount forbids what it can', () => {
    const options = (path: string): string[] =>
      [...(inside.mounts.find(({ mountPoint }) => mountPoint === path)?.options ?? [])].filter((option) => option !== 'relatime');
    expect(
      Object.fromEntries(['/proc', '/sys', '/dev/shm', '/dev/pts', '/dev/mqueue', '/proc/sys'].map((path) => [path, options(path)])),
    ).toMatchInlineSnapshot(`
      {
        "/dev/mqueue": [
          "rw",
          "nosuid",
          "nodev",
          "noexec",
        ],
        "/dev/pts": [
          "rw",
          "nosuid",
          "noexec",
        ],
        "/dev/shm": [
          "rw",
          "nosuid",
          "nodev",
          "noexec",
        ],
        "/proc": [
          "rw",
          "nosuid",
          "nodev",
          "noexec",
        ],
        "/proc/sys": [
          "ro",
          "nosuid",
          "nodev",
          "noexec",
        ],
        "/sys": [
          "ro",
          "nosuid",
          "nodev",
          "noexec",
        ],
      }
    `);
  });

  test('nothing written inside is seen outside', async () => {
    const name = `/etc/cloister-test-${process.pid}`;
    const [made, seen] = await ask([
      ['create', name, 'mine'],
      ['read', name],
    ]);
    expect([made.errno, seen.text]).toEqual([null, 'mine']);
    const [host] = await askHost([['lstat', name]]);
    expect(host.errno).toBe('ENOENT');
  });
});

describe('keys', () => {
  test('no keyring of the host', async () => {
    const [host] = await askHost([['keyctl-session']]);
    const [own] = await ask([['keyctl-session']]);
    if (own.errno === null && host.errno === null) expect(own.keyring).not.toBe(host.keyring);
    else expect(own.errno).not.toBeNull();
  });
});
