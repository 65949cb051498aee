import { readFileSync } from 'node:fs';
import { type Capability, explain, OverlayRootfs, type Rlimit, runIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { capabilityNames } from '../../lib/security/capabilities.js';
import { testNeeding } from '../helpers/lane.js';
import { ask, askHost } from '../helpers/probe.js';
import { refusal, saying } from './refusals.js';
import { smallRoot } from './trees.js';

const mask = (...names: string[]): string =>
  names
    .reduce((set, name) => set | (1n << BigInt((capabilityNames as readonly string[]).indexOf(name))), 0n)
    .toString(16)
    .padStart(16, '0');
const none = mask();

describe('user', () => {
  test('by number', async () => {
    const [ids] = await ask([['ids']], { user: { uid: 1234, gid: 5678 } });
    expect(ids).toMatchObject({ ruid: 1234, euid: 1234, suid: 1234, fsuid: 1234, rgid: 5678, egid: 5678, sgid: 5678, fsgid: 5678 });
  });

  test('by numbers in a string', async () => {
    const [ids] = await ask([['ids']], { user: '1234:5678' });
    expect(ids).toMatchObject({ ruid: 1234, euid: 1234, rgid: 5678, egid: 5678 });
  });

  test('a uid alone has gid 0', async () => {
    const [ids] = await ask([['ids']], { user: { uid: 1234 } });
    expect(ids).toMatchObject({ ruid: 1234, rgid: 0 });
  });

  testNeeding(['root'])('with groups', async () => {
    const [ids] = await ask([['ids']], { user: { uid: 1000, gid: 1000, groups: [7, 8, 65535] } });
    expect(ids.groups).toEqual([7, 8, 65535]);
  });

  testNeeding(['unprivileged'])("groups are not an ordinary user's to give", async () => {
    expect(await saying(runIsolated('true', { user: { uid: 0, gid: 0, groups: [7] } }))).toMatchInlineSnapshot(`
      "gid 7 is not mapped, so nobody can have it inside
        Only 0 is mapped: an ordinary user has no other ids, unless /etc/subuid and /etc/subgid grant some (and newuidmap is installed)."
    `);
  });

  testNeeding(['root'])('an id beyond the map', async () => {
    expect(await saying(runIsolated('true', { user: { uid: 70_000 } }))).toMatchInlineSnapshot(`
      "uid 70000 is not mapped, so nobody can have it inside
        Choose an id of the map, or another idMap."
    `);
    expect(await saying(runIsolated('true', { user: { uid: 1, groups: [70_001] } }))).toMatchInlineSnapshot(`
      "gid 70001 is not mapped, so nobody can have it inside
        Choose an id of the map, or another idMap."
    `);
  });

  testNeeding(['root'])("by the names of the inside's passwd and group", async () => {
    const rootfs = smallRoot({
      'etc/passwd': 'root:x:0:0::/:/bin/sh\nbuilder:x:1200:1300::/:/bin/sh\n',
      'etc/group': 'root:x:0:\nbuilders:x:1300:\ndocker:x:1400:other,builder\nwheel:x:10:other\naudio:x:1500:builder\n',
    });
    const [plain] = await ask([['ids']], { rootfs, user: 'builder' });
    expect(plain).toMatchObject({ ruid: 1200, rgid: 1300, groups: [1400, 1500] });
    const [group] = await ask([['ids']], { rootfs, user: 'builder:wheel' });
    expect(group).toMatchObject({ ruid: 1200, rgid: 10, groups: [] });
    const [number] = await ask([['ids']], { rootfs, user: 'builder:77' });
    expect(number).toMatchObject({ ruid: 1200, rgid: 77, groups: [] });
    const [known] = await ask([['ids']], { rootfs, user: '1200:wheel' });
    expect(known).toMatchObject({ ruid: 1200, rgid: 10 });
  });

  test('root, by name, in the default root', async () => {
    const [ids] = await ask([['ids']], { user: 'root' });
    expect(ids).toMatchObject({ ruid: 0, rgid: 0 });
  });

  test('names that are not there', async () => {
    const rootfs = smallRoot({ 'etc/group': 'root:x:0:\n' });
    expect(await saying(runIsolated('/bin/probe', { rootfs, user: 'nobody-like-that' }))).toMatchInlineSnapshot(`
      "there is no user 'nobody-like-that' in the root's /etc/passwd
        Names are looked up inside; a number needs no entry."
    `);
    expect(await saying(runIsolated('/bin/probe', { rootfs, user: 'root:no-group' }))).toMatchInlineSnapshot(`
      "there is no group 'no-group' in the root's /etc/group
        Names are looked up inside; a number needs no entry."
    `);
  });

  test('an entry without a proper id is nobody, and not root', async () => {
    const rootfs = smallRoot({ 'etc/passwd': 'empty:x::0::/:\nodd:x:12ab:0::/:\nnegative:x:-1:0::/:\nlarge:x:4294967295:0::/:\nshort\n' });
    for (const user of ['empty', 'odd', 'negative', 'large', 'short']) {
      expect(await saying(runIsolated('/bin/probe', { rootfs, user }))).toBe(`the entry of '${user}' in the root's /etc/passwd has no proper id`);
    }
  });

  test('a root without passwd', async () => {
    const rootfs = smallRoot();
    const [ids] = await ask([['ids']], { rootfs, user: '0:0' });
    expect(ids.ruid).toBe(0);
  });

  test('by a name, for a caller that can map one id only too', async () => {
    const [ids, env] = await ask([['ids'], ['env']], { user: 'daemon:games' });
    expect([ids.ruid, ids.rgid, env.env['HOME']]).toEqual([1, 60, '/usr/sbin']);
  });

  testNeeding(['root'])('HOME is that of the name, unless somebody says what it is', async () => {
    const rootfs = smallRoot({ 'etc/passwd': 'builder:x:1200:1300::/srv/builder:/bin/sh\nhomeless:x:1:1:::\n' });
    const home = async (options: object): Promise<string | undefined> => (await ask([['env']], { rootfs, ...options }))[0].env['HOME'];
    expect(await home({ user: 'builder' })).toBe('/srv/builder');
    expect(await home({ user: 'homeless' })).toBe('/');
    expect(await home({ user: 'builder', env: { HOME: '/x' } })).toBe('/x');
    expect(await home({ user: 'builder', env: { HOME: undefined } })).toBeUndefined();
    const shared = await OverlayRootfs.create({ layers: [rootfs] });
    expect(await home({ user: 'builder', rootfs: shared })).toBe('/srv/builder');
    await shared[Symbol.asyncDispose]();
  });

  test('a name with groups that cannot be had', async () => {
    const rootfs = smallRoot({ 'etc/passwd': 'builder:x:7:8::/:\n', 'etc/group': 'far:x:70000:builder\n' });
    const text = await saying(runIsolated('/bin/probe', { rootfs, user: 'builder' }));
    expect(text.replace(/^ {2}.*?(?=Without)/m, '  … ')).toMatchInlineSnapshot(`
      "gid 70000 is not mapped, so nobody can have it inside
        … Without its further groups the user is 'name:group'."
    `);
  });

  test('HOME follows, as far as it is known', async () => {
    const homes = await Promise.all(
      [{}, { user: { uid: 1000, gid: 1000 } }, { env: { HOME: '/x' } }].map(async (options) => (await ask([['env']], options))[0].env['HOME']),
    );
    expect(homes).toEqual(['/root', '/', '/x']);
  });
});

describe('capabilities', () => {
  test('a list, for root', async () => {
    const [caps, bound] = await ask([['caps'], ['bind-tcp', '127.0.0.1', 80]], { capabilities: ['CAP_NET_BIND_SERVICE', 'CAP_CHOWN'] });
    const granted = mask('NET_BIND_SERVICE', 'CHOWN');
    expect(caps).toMatchObject({ effective: granted, permitted: granted, bounding: granted, ambient: none });
    expect(bound.errno).toBeNull();
    const [denied] = await ask([['bind-tcp', '127.0.0.1', 80]]);
    expect(denied.errno).toBe('EACCES');
  });

  test('a list, for another user: ambient, so that it survives exec', async () => {
    const [caps, bound] = await ask([['caps'], ['bind-tcp', '127.0.0.1', 80]], { user: { uid: 1000, gid: 1000 }, capabilities: ['CAP_NET_BIND_SERVICE'] });
    const granted = mask('NET_BIND_SERVICE');
    expect(caps).toMatchObject({ effective: granted, permitted: granted, inheritable: granted, ambient: granted, bounding: granted });
    expect(bound.errno).toBeNull();
  });

  test('an empty list is none', async () => {
    const [caps] = await ask([['caps']], { capabilities: [] });
    expect(caps).toMatchObject({ effective: none, permitted: none, inheritable: none, ambient: none, bounding: none });
  });

  test('five sets, each its own', async () => {
    const capabilities = {
      bounding: ['CAP_CHOWN', 'CAP_KILL', 'CAP_FOWNER', 'CAP_SETUID'],
      permitted: ['CAP_CHOWN', 'CAP_KILL', 'CAP_FOWNER'],
      effective: ['CAP_CHOWN'],
      inheritable: ['CAP_FOWNER'],
      ambient: ['CAP_FOWNER'],
    } as const;
    const [caps] = await ask([['caps']], { user: { uid: 1000, gid: 1000 }, capabilities });
    // What is neither ambient nor of root is lost in exec: capabilities(7), "Transformation of capabilities during execve()".
    expect(caps).toMatchObject({
      bounding: mask('CHOWN', 'KILL', 'FOWNER', 'SETUID'),
      inheritable: mask('FOWNER'),
      ambient: mask('FOWNER'),
      permitted: mask('FOWNER'),
      effective: mask('FOWNER'),
    });
  });

  test('all that there are', async () => {
    const last = Number(readFileSync('/proc/sys/kernel/cap_last_cap', 'utf8'));
    const all = capabilityNames.slice(0, last + 1).map((name): Capability => `CAP_${name}`);
    const [caps] = await ask([['caps']], { capabilities: all });
    expect(caps.bounding).toBe(mask(...capabilityNames.slice(0, last + 1)));
    expect(caps.effective).toBe(caps.bounding);
  });

  test('the receipt lists them', async () => {
    const { isolation } = await runIsolated('true', { capabilities: ['CAP_KILL', 'CAP_CHOWN'] });
    expect(isolation.capabilities).toEqual(['CAP_CHOWN', 'CAP_KILL']);
  });

  test('a mount stays hidden from who may not mount', async () => {
    const [umount] = await ask([['umount', '/proc/sys', 2]], { capabilities: ['CAP_NET_ADMIN', 'CAP_DAC_OVERRIDE'] });
    expect(umount.errno).toBe('EPERM');
  });
});

test('noNewPrivileges: false', async () => {
  const [status] = await ask([['status']], { noNewPrivileges: false });
  expect(status.noNewPrivs).toBe(0);
  const { isolation } = await runIsolated('true', { noNewPrivileges: false });
  expect(isolation.noNewPrivileges).toBe(false);
});

describe('rlimits', () => {
  const kinds: Rlimit[] = [
    'as',
    'core',
    'cpu',
    'data',
    'fsize',
    'locks',
    'memlock',
    'msgqueue',
    'nice',
    'nofile',
    'nproc',
    'rss',
    'rtprio',
    'rttime',
    'sigpending',
    'stack',
  ];

  test('each kind, lowered to a soft and a hard limit of its own', async () => {
    const [{ rlimits: host }] = [{ rlimits: (await askHost([['rlimits']]))[0] }];
    const rlimits = Object.fromEntries(
      kinds.map((kind, index) => {
        // Large enough to live with, not above what we have, and no two alike.
        const hard = Math.min(host[kind].hard, 2 ** 40 + index);
        return [kind, { soft: Math.max(0, Math.min(host[kind].soft, hard) - (hard > 4096 ? index + 1 : 0)), hard }];
      }),
    ) as Record<Rlimit, { soft: number; hard: number }>;
    const [seen] = await ask([['rlimits']], { rlimits });
    expect(Object.fromEntries(kinds.map((kind) => [kind, seen[kind]]))).toEqual(rlimits);
  });

  test('a number is both', async () => {
    const [seen] = await ask([['rlimits']], { rlimits: { nofile: 100, core: 0 } });
    expect([seen.nofile, seen.core]).toEqual([
      { soft: 100, hard: 100 },
      { soft: 0, hard: 0 },
    ]);
  });

  test('Infinity', async () => {
    const [host] = await askHost([['rlimits']]);
    const [seen] = await ask([['rlimits']], { rlimits: { fsize: Infinity, cpu: { soft: 1000, hard: Infinity } } });
    expect(host.fsize.hard).toBe(Infinity);
    expect([seen.fsize, seen.cpu]).toEqual([
      { soft: Infinity, hard: Infinity },
      { soft: 1000, hard: Infinity },
    ]);
  });

  test('one that is in force', async () => {
    // A PID 1 gets EFBIG alone: the kernel drops the SIGXFSZ that it has no handler for.
    const [written] = await ask([['fill', '/tmp/file', '1M']], { rlimits: { fsize: 2 ** 16 } });
    expect(written).toMatchObject({ errno: 'EFBIG', written: 2 ** 16 });
  });

  testNeeding(['unprivileged'])("above one's own", async () => {
    const [host] = await askHost([['rlimits']]);
    const text = await saying(runIsolated('true', { rlimits: { nofile: host.nofile.hard + 1 } }));
    expect(text).toMatchInlineSnapshot(`
      "EPERM: set a resource limit RLIMIT_NOFILE (prlimit64): RLIMIT_NOFILE may not be raised above the hard limit of this process
        Choose a lower one, or raise that of this process before (ulimit -H, LimitNOFILE= and its like in a systemd unit)."
    `);
  });
});

describe('the rest', () => {
  test('umask', async () => {
    const [status, made] = await ask([['status'], ['create', '/tmp/file']], { umask: 0o077 });
    expect([status.umask, made.errno]).toEqual(['0077', null]);
    const [file] = await ask([['stat', '/etc/made']], { umask: 0o027, mounts: [{ type: 'file', target: '/etc/made', contents: '' }] });
    expect(file.mode).toBe('0644');
  });

  test('oomScoreAdj, and ours stays as it was', async () => {
    const before = readFileSync('/proc/self/oom_score_adj', 'utf8');
    const [oom] = await ask([['oom']], { oomScoreAdj: 777 });
    expect(oom.scoreAdj).toBe(777);
    expect(readFileSync('/proc/self/oom_score_adj', 'utf8')).toBe(before);
    const [next] = await ask([['oom']]);
    expect(next.scoreAdj).toBe(Number(before));
  });

  testNeeding(['unprivileged'])("an oomScoreAdj below one's own", async () => {
    expect(await saying(runIsolated('true', { oomScoreAdj: -1000 }))).toMatchInlineSnapshot(`
      "EACCES: write oom_score_adj /proc/PID/oom_score_adj (write): a score below the lowest that this process ever had needs CAP_SYS_RESOURCE
        Choose a higher oomScoreAdj: what is killed first should be the sandbox anyway."
    `);
  });

  test('sysctl', async () => {
    const [shm, forward, ttl] = await ask(
      [
        ['read', '/proc/sys/kernel/shmmax'],
        ['read', '/proc/sys/net/ipv4/ip_forward'],
        ['read', '/proc/sys/net/ipv4/ip_unprivileged_port_start'],
      ],
      {
        sysctl: { 'kernel.shmmax': '65536', 'net.ipv4.ip_forward': '1', 'net.ipv4.ip_unprivileged_port_start': '0' },
      },
    );
    expect([shm.text, forward.text, ttl.text]).toEqual(['65536\n', '1\n', '0\n']);
    expect(readFileSync('/proc/sys/kernel/shmmax', 'utf8')).not.toBe('65536\n');
    const [bound] = await ask([['bind-tcp', '127.0.0.1', 80]], { sysctl: { 'net.ipv4.ip_unprivileged_port_start': '0' } });
    expect(bound.errno).toBeNull();
  });

  test('a sysctl that does not exist, and a value that it does not take', async () => {
    expect(await saying(runIsolated('true', { sysctl: { 'net.ipv4.no_such_thing': '1' } }))).toMatchInlineSnapshot(
      `"ENOENT: set a sysctl /proc/sys/net/ipv4/no_such_thing (openat2): this kernel has no such sysctl, or its namespace has none of its own"`,
    );
    expect(await saying(runIsolated('true', { sysctl: { 'net.ipv4.ip_forward': 'many' } }))).toMatchInlineSnapshot(
      `"EINVAL: set a sysctl /proc/sys/net/ipv4/ip_forward (write): the sysctl does not take this value"`,
    );
  });

  test('hostname and domainname', async () => {
    const [names] = await ask([['hostname']], { hostname: 'box-1.example', domainname: 'example.org' });
    expect(names).toMatchObject({ hostname: 'box-1.example', domainname: 'example.org' });
    const [host] = await askHost([['hostname']]);
    expect(host.hostname).not.toBe('box-1.example');
  });

  testNeeding(['time-namespaces'])('timeOffsets are added to the clocks', async () => {
    const day = 86_400_000;
    const [inside] = await ask([['clocks']], { timeOffsets: { monotonic: 2 * day, boottime: 3 * day + 0.5 } });
    const [outside] = await askHost([['clocks']]);
    const ms = (a: string, b: string): number => Number((BigInt(a) - BigInt(b)) / 1_000_000n);
    // The host was asked a little later.
    expect(Math.round(ms(inside.monotonic, outside.monotonic) / day)).toBe(2);
    expect(Math.round(ms(inside.boottime, outside.boottime) / day)).toBe(3);
    expect(Math.abs(Math.round(ms(inside.realtime, outside.realtime) / day))).toBe(0);
  });

  testNeeding(['time-namespaces'])('negative ones too, as far as the machine is old', async () => {
    const [inside] = await ask([['clocks']], { timeOffsets: { monotonic: -1000.5 } });
    const [outside] = await askHost([['clocks']]);
    expect(BigInt(inside.monotonic)).toBeLessThan(BigInt(outside.monotonic) - 1_000_000_000n);
    expect(await saying(runIsolated('true', { timeOffsets: { boottime: -1e15 } }))).toMatchInlineSnapshot(`
      "ERANGE: set the clocks /proc/self/timens_offsets (write): no clock may be set below 0, or more than about 146 years ahead
        timeOffsets are milliseconds; a negative one can be as large as the machine has been running."
    `);
  });

  test('cwd', async () => {
    const [cwd] = await ask([['cwd']], { cwd: '/usr/bin' });
    expect(cwd.cwd).toBe('/usr/bin');
  });

  test('a cwd that is not there, or no directory', async () => {
    expect(await saying(runIsolated('true', { cwd: '/no/such/place' }))).toMatchInlineSnapshot(`
      "ENOENT: enter the working directory /no/such/place (openat2): there is no directory /no/such/place in the root
        \`cwd\` is a path inside the sandbox; \`mounts\` can bring a directory in."
    `);
    expect(await saying(runIsolated('true', { cwd: '/etc/passwd' }))).toMatchInlineSnapshot(
      `"ENOTDIR: enter the working directory /etc/passwd (openat2): /etc/passwd is not a directory in the root"`,
    );
  });

  testNeeding(['root'])('a cwd that the user may not enter', async () => {
    const [cwd] = await ask([['cwd']], { cwd: '/root', user: { uid: 1000, gid: 1000 } }).catch((error) => [error]);
    // As with Docker: the directory is entered as root, and what the user can do there is the user's.
    expect(cwd.cwd).toBe('/root');
  });

  test('env adds to the defaults, and takes away', async () => {
    const [{ env }] = await ask([['env']], { env: { LANG: undefined, MORE: 'x=y', EMPTY: '', TERM: 'dumb' } });
    expect(env).toEqual({ PATH: expect.stringContaining('/usr/bin'), HOME: '/root', TERM: 'dumb', MORE: 'x=y', EMPTY: '' });
  });

  test('explain prints names of the environment, not its secrets', async () => {
    const text = String(await explain('true', [], { env: { SECRET_KEY: 'hunter2' } }));
    expect(text).toContain('SECRET_KEY');
    expect(text).not.toContain('hunter2');
  });

  test('errors of a user have the field that tells which', async () => {
    const error = await refusal(runIsolated('true', { user: 'nobody-like-that' }));
    expect(error).toMatchObject({ code: 'ERR_CLOISTER_USER', step: 'look up the user', path: '/etc/passwd' });
  });
});
