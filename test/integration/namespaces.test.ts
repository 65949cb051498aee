import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import {
  CgroupNamespace,
  IpcNamespace,
  IsolationError,
  MountNamespace,
  Namespace,
  type NamespaceType,
  NetNamespace,
  OverlayRootfs,
  PidNamespace,
  runIsolated,
  spawnIsolated,
  TimeNamespace,
  UserNamespace,
  UtsNamespace,
} from 'cloister';
import { describe, expect, test } from 'vitest';
import { inChild } from '../helpers/harness.js';
import { testNeeding } from '../helpers/lane.js';
import { ask, askHost, fixture, insideFixture, startProbe } from '../helpers/probe.js';
import { refusal, saying } from './refusals.js';
import { smallRoot, temporary } from './trees.js';

const isRoot = process.geteuid?.() === 0;
const classes = {
  cgroup: CgroupNamespace,
  ipc: IpcNamespace,
  mount: MountNamespace,
  net: NetNamespace,
  pid: PidNamespace,
  time: TimeNamespace,
  user: UserNamespace,
  uts: UtsNamespace,
} as const;
const types = Object.keys(classes) as NamespaceType[];
const file = (type: NamespaceType): 'mnt' | Exclude<NamespaceType, 'mount'> => (type === 'mount' ? 'mnt' : type);
const ownId = (type: NamespaceType): bigint => statSync(`/proc/self/ns/${file(type)}`, { bigint: true }).ino;

describe.each(types)('a new %s namespace', (type) => {
  test('is of its class, open, and not ours', async () => {
    using made = await Namespace.create(type);
    expect(made).toBeInstanceOf(classes[type]);
    expect(made).toBeInstanceOf(Namespace);
    expect(made.type).toBe(type);
    expect(made.id).not.toBe(ownId(type));
    expect(statSync(`/proc/self/fd/${made.fd}`, { bigint: true }).ino).toBe(made.id);
  });

  test('is not the next one', async () => {
    using one = await Namespace.create(type);
    using other = await Namespace.create(type);
    expect(one.equals(other)).toBe(false);
    expect(one.equals(one)).toBe(true);
  });

  test('is joined by a spawn', async () => {
    using made = await Namespace.create(type);
    const [inside] = await ask([['namespaces']], { namespaces: { [type]: made } }).catch(async (error: unknown) => {
      // A mount namespace brings its own files: nothing is bound in it.
      if (type !== 'mount') throw error;
      const { stdout } = await runIsolated(fixture('probe'), ['namespaces'], { namespaces: { mount: made as MountNamespace } });
      return [JSON.parse(stdout)];
    });
    expect(BigInt(inside[file(type)])).toBe(made.id);
  });

  test('is found again, in a process that is in it', async () => {
    using made = await Namespace.create(type);
    const child =
      type === 'mount'
        ? spawnIsolated(fixture('probe'), ['sleep'], { namespaces: { mount: made as MountNamespace } })
        : startProbe(['sleep'], { namespaces: { [type]: made } }).process;
    await using _ = child;
    await child.spawned;
    using found = await Namespace.of(child, type);
    using byPid = await Namespace.of(child.pid as number, type);
    expect([found.equals(made), byPid.equals(made)]).toEqual([true, true]);
    expect(child.namespaces[type].id).toBe(made.id);
  });

  test('has an owner, of ours or made for it', async () => {
    using made = await Namespace.create(type);
    if (type === 'user') {
      using above = (await (made as UserNamespace).parent()) as UserNamespace;
      expect(above.id).toBe(ownId('user'));
      return;
    }
    using owner = await made.owner();
    expect(owner).toBeInstanceOf(UserNamespace);
    expect(owner.id === ownId('user')).toBe(isRoot);
  });

  test("runs a command, all else the caller's", async () => {
    using made = await Namespace.create(type);
    const { stdout, exitCode, stderr } = await made.run(fixture('probe'), ['namespaces', '--', 'cwd']);
    expect([exitCode, stderr]).toEqual([0, '']);
    const [line = '', cwd = ''] = stdout.split('\n');
    const inside = JSON.parse(line) as Record<string, number>;
    const [outside] = await askHost([['namespaces']]);
    const changed = types.filter((name) => inside[file(name)] !== outside[file(name)]);
    expect(BigInt(inside[file(type)] as number)).toBe(made.id);
    // An ordinary user enters the owner with it.
    expect(changed.filter((name) => name !== type && (isRoot || name !== 'user'))).toEqual([]);
    expect(JSON.parse(cwd).cwd).toBe(type === 'mount' ? '/' : process.cwd());
  });

  test('is closed once, and has no descriptor then', async () => {
    const made = await Namespace.create(type);
    made.close();
    made.close();
    made[Symbol.dispose]();
    expect(() => made.fd).toThrow(`this ${type} namespace has been closed`);
    expect(await refusal(runIsolated('true', { namespaces: { [type]: made } }))).toMatchObject({ code: 'ERR_CLOISTER_DISPOSED' });
  });

  test('leaves nothing', async () => {
    // In a process of its own: ours has sandboxes behind it, and makes ready for the next.
    const { stdout, stderr, exitCode } = await inChild(
      `
      import { readdirSync } from 'node:fs';
      import { Namespace } from 'cloister';
      const [type] = process.argv.slice(1);
      const held = () => readdirSync('/proc/self/fd').length + readdirSync('/proc/self/task').length * 1000;
      async function round() {
        const made = await Namespace.create(type);
        if (type !== 'user') (await made.owner()).close();
        await made.run('true');
        made.close();
      }
      for (let turn = 0; turn < 3; turn++) await round();
      const before = held();
      for (let turn = 0; turn < 5; turn++) await round();
      for (let turn = 0; turn < 200 && held() !== before; turn++) await new Promise((resolve) => setTimeout(resolve, 10));
      console.log(held() - before);
    `,
      { args: [type] },
    );
    expect([stdout, stderr, exitCode]).toEqual(['0\n', '', 0]);
  });
});

describe('names of namespaces', () => {
  test('of this process', async () => {
    for (const type of types) {
      using own = await Namespace.of('self', type);
      expect(own.id).toBe(ownId(type));
    }
  });

  test('from a file, whose kind is its own', async () => {
    using net = await Namespace.open('/proc/self/ns/net');
    expect(net).toBeInstanceOf(NetNamespace);
    using mount = await Namespace.open('/proc/self/ns/mnt', 'mount');
    expect(mount.id).toBe(ownId('mount'));
  });

  test('what is none is refused', async () => {
    await expect(Namespace.open('/etc/passwd')).rejects.toThrowErrorMatchingInlineSnapshot(`[TypeError: option 'path' takes a namespace; got "/etc/passwd"]`);
    await expect(Namespace.open('/proc/self/ns/net', 'uts')).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'path' takes a uts namespace; got "/proc/self/ns/net, a net namespace"]`,
    );
    await expect(Namespace.open('/no/such/file')).rejects.toThrowErrorMatchingInlineSnapshot(
      `[IsolationError: ENOENT: open a namespace /no/such/file (open): no such file or directory]`,
    );
    await expect(Namespace.create('nonsense' as 'uts')).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'type' takes 'cgroup', 'ipc', 'mount', 'net', 'pid', 'time', 'user' or 'uts'; got "nonsense"]`,
    );
    await expect(Namespace.of(-1, 'uts')).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'target' takes a pid, a process that is running, or 'self'; got -1]`,
    );
    await expect(Namespace.of(2 ** 22 + 1, 'uts')).rejects.toThrowErrorMatchingInlineSnapshot(
      `[IsolationError: ENOENT: open a namespace /proc/4194305/ns/uts (open): no such file or directory]`,
    );
    await expect(Namespace.create('uts', { nonsense: 1 } as object)).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'nonsense' takes nothing: there is no such option; got 1]`,
    );
    await expect(Namespace.create('uts', { timeOffsets: { monotonic: 1 } })).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'timeOffsets' takes nothing unless type is 'time'; got an instance of Object]`,
    );
    using uts = await Namespace.create('uts');
    await expect(Namespace.create('net', { owner: uts as unknown as UserNamespace })).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'owner' takes a UserNamespace; got an instance of UtsNamespace]`,
    );
  });

  test('a process that has ended has none to give', async () => {
    const child = startProbe(['ids']).process;
    child.stdout.resume();
    await child.exited;
    await expect(Namespace.of(child, 'net')).rejects.toThrow(IsolationError);
  });
});

describe('parents', () => {
  test('of ours: beyond what we may see', async () => {
    using pid = await Namespace.of('self', 'pid');
    using user = await Namespace.of('self', 'user');
    expect([await pid.parent(), await user.parent()]).toEqual([undefined, undefined]);
  });

  test('of one inside', async () => {
    const { process: child } = startProbe(['sleep']);
    await using _ = child;
    await child.spawned;
    using pid = (await child.namespaces.pid.parent()) as PidNamespace;
    using user = (await child.namespaces.user.parent()) as UserNamespace;
    expect([pid.id, user.id]).toEqual([ownId('pid'), ownId('user')]);
  });
});

describe('uts', () => {
  test('has a name that can be set', async () => {
    using uts = await Namespace.create('uts');
    const [{ hostname }] = await askHost([['hostname']]);
    expect(await uts.hostname()).toBe(hostname);
    await uts.setHostname('by-hand');
    expect(await uts.hostname()).toBe('by-hand');
    expect((await askHost([['hostname']]))[0].hostname).toBe(hostname);
    const [inside] = await ask([['hostname']], { namespaces: { uts } });
    expect(inside.hostname).toBe('by-hand');
    await uts.setHostname('x'.repeat(64));
    expect(await uts.hostname()).toBe('x'.repeat(64));
    await expect(uts.setHostname('x'.repeat(65))).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'name' takes at most 64 bytes; got "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."]`,
    );
  });

  test('of ours: a name to read', async () => {
    using own = await Namespace.of('self', 'uts');
    expect(await own.hostname()).toBe(readFileSync('/proc/sys/kernel/hostname', 'utf8').trim());
  });
});

describe('user', () => {
  test('says its map', async () => {
    using user = await Namespace.create('user', { idMap: 'self' });
    const one = (id: number | undefined) => [{ inside: 0, outside: id, count: 1 }];
    expect(await user.idMap()).toEqual({ uids: one(process.getuid?.()), gids: one(process.getgid?.()) });
    using own = await Namespace.of('self', 'user');
    expect((await own.idMap()).uids[0]).toMatchObject({ inside: 0 });
  });

  testNeeding(['root'])('ids by range', async () => {
    using auto = await Namespace.create('user', { idMap: 'auto' });
    expect((await auto.idMap()).uids).toEqual([{ inside: 0, outside: expect.any(Number), count: 65536 }]);
    const idMap = {
      uids: [
        { inside: 0, outside: 1000, count: 10 },
        { inside: 100, outside: 5000, count: 5 },
      ],
      gids: [{ inside: 0, outside: 2000, count: 10 }],
    };
    using own = await Namespace.create('user', { idMap });
    expect(await own.idMap()).toEqual(idMap);
    const [ids] = await ask([['ids']], { namespaces: { user: own } });
    expect(ids).toMatchObject({ ruid: 0, uidMap: idMap.uids, gidMap: idMap.gids });
  });
});

describe('time', () => {
  testNeeding(['time-namespaces'])('has offsets of its own', async () => {
    using time = await Namespace.create('time', { timeOffsets: { monotonic: 86_400_000, boottime: 172_800_000 } });
    const [inside] = await ask([['clocks']], { namespaces: { time } });
    const [outside] = await askHost([['clocks']]);
    expect(Math.round(Number(BigInt(inside.monotonic) - BigInt(outside.monotonic)) / 86_400e9)).toBe(1);
    expect(Math.round(Number(BigInt(inside.boottime) - BigInt(outside.boottime)) / 86_400e9)).toBe(2);
  });
});

describe('net', () => {
  test('has its loopback device up', async () => {
    using net = await Namespace.create('net');
    const [interfaces, ping] = await ask([['interfaces'], ['ping-lo']], { namespaces: { net } });
    expect(interfaces.interfaces.map(({ name, up }) => [name, up])).toEqual([['lo', true]]);
    expect(ping).toMatchObject({ ipv4: null, ipv6: null });
  });

  test('is one for two programs', async () => {
    using net = await Namespace.create('net');
    const server = startProbe([['serve-tcp', '127.0.0.1', 7000, 'hello']], { network: net });
    await using _ = server.process;
    await server.lines.until(/"port":7000/);
    const [answer] = await ask([['connect-tcp', '127.0.0.1', 7000, 'hi']], { network: net });
    expect(answer.received).toBe('hello');
    const [elsewhere] = await ask([['connect-tcp', '127.0.0.1', 7000, 'hi']]);
    expect(elsewhere.errno).toBe('ECONNREFUSED');
  });
});

describe('pid', () => {
  test('is one for two programs, which see each other', async () => {
    using pid = await Namespace.create('pid');
    const first = startProbe(['sleep'], { namespaces: { pid } });
    await using _ = first.process;
    await first.lines.until('ready');
    const [{ processes }] = await ask([['processes']], { namespaces: { pid } });
    expect(processes.map(({ comm }) => comm)).toEqual([expect.stringContaining('cloister'), 'probe', 'probe']);
  });

  test('close() ends all that is in it', async () => {
    const pid = await Namespace.create('pid');
    const first = startProbe(['sleep'], { namespaces: { pid } });
    await first.lines.until('ready');
    pid.close();
    expect(await first.process.exited).toMatchObject({ exitCode: null, signal: 'SIGKILL' });
  });

  test('its init does not keep this process', async () => {
    const { exitCode, stdout } = await inChild(`
      import { Namespace } from 'cloister';
      const pid = await Namespace.create('pid');
      const time = await Namespace.create('time');
      console.log(pid.type, time.type);
    `);
    expect([exitCode, stdout]).toEqual([0, 'pid time\n']);
  });
});

describe('several at once', () => {
  test('owned by one user namespace, as somebody puts a sandbox together by hand', async () => {
    using user = await Namespace.create('user', { idMap: 'auto' });
    using net = await Namespace.create('net', { owner: user });
    using uts = await Namespace.create('uts', { owner: user });
    using ipc = await Namespace.create('ipc', { owner: user });
    using owner = await net.owner();
    expect(owner.equals(user)).toBe(true);
    await uts.setHostname('by-hand');
    const plain = { namespaces: { user, net, uts, ipc } };
    const [inside, names] = await ask([['namespaces'], ['hostname']], plain);
    expect([inside.user, inside.net, inside.uts, inside.ipc].map(BigInt)).toEqual([user.id, net.id, uts.id, ipc.id]);
    expect(names.hostname).toBe('by-hand');
    expect(inside.pid).not.toBe(Number(ownId('pid')));
  });

  testNeeding(['root'])('with a root of its own', async () => {
    using user = await Namespace.create('user', { idMap: 'auto' });
    using net = await Namespace.create('net', { owner: user });
    using uts = await Namespace.create('uts', { owner: user });
    await uts.setHostname('by-hand');
    await using rootfs = await OverlayRootfs.create({ layers: [smallRoot({ file: '' })] });
    const [namespaces, names, owned, made] = await ask([['namespaces'], ['hostname'], ['stat', '/file'], ['create', '/made']], {
      rootfs,
      namespaces: { user, net, uts },
    });
    expect([namespaces.user, namespaces.net, namespaces.uts].map(BigInt)).toEqual([user.id, net.id, uts.id]);
    expect([names.hostname, made.errno]).toEqual(['by-hand', null]);
    expect(owned).toMatchObject({ uid: 0, gid: 0 });
    const [again] = await ask([['stat', '/made']], { rootfs, namespaces: { user, net, uts } });
    expect(again).toMatchObject({ uid: 0, gid: 0 });
  });

  test('all kinds but the mount and the user namespace of the caller', async () => {
    using user = await Namespace.create('user');
    const others = await Promise.all((['cgroup', 'ipc', 'net', 'pid', 'time', 'uts'] as const).map((type) => Namespace.create(type, { owner: user })));
    const all: Namespace[] = [user, ...others];
    const made = Object.fromEntries(all.map((namespace) => [namespace.type, namespace]));
    try {
      const [inside] = await ask([['namespaces']], { namespaces: made });
      for (const { type, id } of all) expect([type, BigInt(inside[type as 'net'])]).toEqual([type, id]);
    } finally {
      for (const namespace of others) namespace.close();
    }
  });

  test('those of a sandbox that runs', async () => {
    const first = startProbe(['sleep'], { hostname: 'first' });
    await using _ = first.process;
    await first.lines.until('ready');
    const { user, net, pid, uts } = first.process.namespaces;
    const [names, { processes }] = await ask([['hostname'], ['processes']], { namespaces: { user, net, pid, uts } });
    expect(names.hostname).toBe('first');
    expect(processes).toHaveLength(2);
  });

  testNeeding(['unprivileged'])('of two owners cannot be', async () => {
    using net = await Namespace.create('net');
    using uts = await Namespace.create('uts');
    expect(await saying(runIsolated('true', { namespaces: { net, uts } }))).toMatchInlineSnapshot(`
      "EPERM: join the uts namespace (setns): another user namespace owns it than the one that is entered
        Namespaces that are joined together need one owner: Namespace.create(type, { owner })."
    `);
  });
});

describe('a pinned one', () => {
  testNeeding(['root'])('outlives who has made it', async () => {
    const directory = temporary();
    const path = join(directory, 'uts');
    // In a mount namespace of its own: what is pinned there goes with it.
    const { stdout, stderr } = await inChild(
      `
      import { Namespace } from 'cloister';
      const [path] = process.argv.slice(1);
      const made = await Namespace.create('uts');
      await made.setHostname('pinned');
      await made.pin(path);
      const { id } = made;
      made.close();
      const again = await Namespace.open(path);
      console.log(again.type, again.id === id, await again.hostname());
      again.close();
      const { execFileSync } = await import('node:child_process');
      execFileSync('umount', [path]);
    `,
      { args: [path] },
    );
    expect([stdout, stderr]).toEqual(['uts true pinned\n', '']);
    expect(existsSync(path)).toBe(true);
  });

  test('needs privileges, and leaves no file if there are none', async () => {
    using uts = await Namespace.create('uts');
    const path = isRoot ? '/proc/no-such-file' : join(temporary(), 'uts');
    const error = await refusal(uts.pin(path));
    expect(error.message.replace(path, 'PATH')).toBe(
      isRoot ? 'ENOENT: pin a namespace PATH (open): no such file or directory' : 'EPERM: pin a namespace PATH (open_tree): operation not permitted',
    );
    expect(existsSync(path)).toBe(false);
  });

  test('takes an absolute path', async () => {
    using uts = await Namespace.create('uts');
    await expect(uts.pin('relative')).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'path' takes an absolute path, such as '/work'; got "relative"]`,
    );
  });
});

describe('options that disagree', () => {
  test('are refused before anything happens', async () => {
    using net = await Namespace.create('net');
    using uts = await Namespace.create('uts');
    using user = await Namespace.create('user');
    const messages = [
      { namespaces: { net }, network: 'none' },
      { namespaces: { net: 'host' }, network: 'none' },
      { namespaces: { net: 'new' }, network: net },
      { namespaces: { net: uts } },
      { namespaces: { user }, idMap: 'self' },
      { namespaces: { user: 'host' }, idMap: 'auto' },
      { namespaces: { uts }, hostname: 'x' },
      { namespaces: { time: 'host' }, timeOffsets: { monotonic: 1 } },
      { namespaces: { pid: 'host' }, init: true },
      { namespaces: { mount: 'host' }, rootfs: '/' },
      { namespaces: { nonsense: 'new' } },
      { namespaces: { net: 'old' } },
    ].map((options) => {
      try {
        spawnIsolated('true', options as object);
        return 'accepted';
      } catch (error) {
        expect(error).toBeInstanceOf(TypeError);
        return (error as Error).message;
      }
    });
    expect(messages).toMatchInlineSnapshot(`
      [
        "option 'network' takes the same as namespaces.net, if both are given; got "none"",
        "option 'network' takes the same as namespaces.net, if both are given; got "none"",
        "option 'network' takes the same as namespaces.net, if both are given; got an instance of NetNamespace",
        "option 'namespaces.net' takes a net namespace; got an instance of UtsNamespace",
        "option 'idMap' takes nothing when namespaces.user is not 'new': its ids are mapped already; got "self"",
        "option 'idMap' takes nothing when namespaces.user is not 'new': its ids are mapped already; got "auto"",
        "option 'hostname' takes nothing when namespaces.uts is not 'new'; got "x"",
        "option 'timeOffsets' takes nothing when namespaces.time is not 'new'; got an instance of Object",
        "option 'init' takes false when namespaces.pid is not 'new': an init is PID 1; got true",
        "option 'rootfs' takes nothing when namespaces.mount is not 'new'; got "/"",
        "option 'namespaces.nonsense' takes nothing: there is no such option; got "new"",
        "option 'namespaces.net' takes 'new', 'host' or a net namespace; got "old"",
      ]
    `);
  });

  test('agreeing twice is no mistake', async () => {
    using net = await Namespace.create('net');
    const [inside] = await ask([['namespaces']], { namespaces: { net }, network: net });
    expect(BigInt(inside.net)).toBe(net.id);
    const [host] = await ask([['namespaces']], { namespaces: { net: 'host' }, network: 'host' });
    expect(BigInt(host.net)).toBe(ownId('net'));
  });
});

describe("the host's", () => {
  test.each(types.filter((type) => type !== 'user' && type !== 'mount'))('%s, where asked for', async (type) => {
    const [inside] = await ask([['namespaces']], { namespaces: { [type]: 'host' } });
    expect(BigInt(inside[file(type)])).toBe(ownId(type));
  });

  testNeeding(['root'])('user: root is root, without capabilities', async () => {
    const [namespaces, caps, ids] = await ask([['namespaces'], ['caps'], ['ids']], { namespaces: { user: 'host' } });
    expect(BigInt(namespaces.user)).toBe(ownId('user'));
    expect(caps.effective).toBe('0'.repeat(16));
    expect(ids.uidMap).toEqual([{ inside: 0, outside: 0, count: 4294967295 }]);
  });

  testNeeding(['unprivileged'])('user is not to be had by an ordinary user', async () => {
    expect(await saying(runIsolated('true', { namespaces: { user: 'host' } }))).toMatchInlineSnapshot(`
      "EPERM: make the namespaces (clone3): only root may make namespaces without a user namespace that owns them
        Leave namespaces.user as it is by default ('new'), or run as root."
    `);
  });

  test("mount: the files are the host's own", async () => {
    const { stdout } = await runIsolated(fixture('probe'), ['namespaces'], { namespaces: { mount: 'host' } });
    expect(BigInt(JSON.parse(stdout).mnt)).toBe(ownId('mount'));
    expect(insideFixture('true')).toBe('/probe/true');
  });
});
