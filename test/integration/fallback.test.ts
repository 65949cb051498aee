// Really without namespaces: in processes that are refused them, as root, as root with capabilities, as an ordinary user, behind a filter.
import { writeFileSync } from 'node:fs';
import { runIsolated, type SpawnOptions } from 'cloister';
import { describe, expect, test } from 'vitest';
import { fixturesDirectory } from '../helpers/fixtures.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { hostAbilities, hosts, withoutNamespaces } from '../helpers/no-namespaces.js';
import { type AnswersTo, type Question, toArguments } from '../helpers/probe.js';
import { temporary } from './trees.js';

const names = Object.keys(hosts) as (keyof typeof hosts)[];

interface Told {
  readonly result?: Awaited<ReturnType<typeof runIsolated>>;
  readonly error?: { readonly message: string; readonly code: string };
}

const run = `
  import { runIsolated } from 'cloister';
  const [command, args, options] = process.argv.slice(1).map((word) => JSON.parse(word));
  const told = await runIsolated(command, args, { fallback: 'landlock', ...options }).then(
    (result) => ({ result }),
    (error) => ({ error: { message: error.message, code: error.code } }),
  );
  console.log(JSON.stringify(told));`;

const runOn = (host: keyof typeof hosts, command: string, args: readonly string[], options: SpawnOptions = {}): Told =>
  withoutNamespaces(
    host,
    run,
    [command, args, options].map((word) => JSON.stringify(word)),
  ) as Told;

/** The probe, where it is on the host. */
function askOn<const Q extends readonly Question[]>(host: keyof typeof hosts, questions: Q, options: SpawnOptions = {}): AnswersTo<Q> {
  const directory = fixturesDirectory();
  const bind = { type: 'bind', source: directory, target: directory, readonly: true } as const;
  const told = runOn(host, `${directory}/probe`, toArguments(questions), { ...options, mounts: [...(options.mounts ?? []), bind] });
  if (!told.result) throw new Error(told.error?.message);
  return String(told.result.stdout)
    .trim()
    .split('\n')
    .map((line): unknown => JSON.parse(line)) as unknown as AnswersTo<Q>;
}

describeNeeding(hostAbilities)('a host without namespaces', () => {
  test.each(names)('%s: the program runs, and the receipt says as what', (host) => {
    const { result } = runOn(host, 'sh', ['-c', 'echo $((6 * 7))']);
    expect(result).toMatchObject({ stdout: '42\n', exitCode: 0, reason: 'exit' });
    const { isolation } = result as NonNullable<typeof result>;
    expect(isolation).toMatchObject({
      ...{ level: 'landlock', capabilities: [], noNewPrivileges: true, network: 'host', cgroup: false },
      root: { driver: 'none' },
      landlock: { missing: [] },
    });
    expect(new Set(Object.values(isolation.namespaces))).toEqual(new Set(['host']));
    expect(isolation.missing.filter((name) => name !== 'user.groups')).toEqual([
      ...['cgroup', 'ipc', 'mount', 'net', 'pid', 'user', 'uts'].map((type) => `namespaces.${type}`),
      'rootfs',
    ]);
  });

  test.each(names)('%s: without asking for it, the refusal', (host) => {
    const { error } = runOn(host, 'true', [], { fallback: 'never' });
    expect(error?.code).toBe('ERR_CLOISTER_NAMESPACE');
  });

  test.each(names)('%s: no capability, no new privileges, no descriptor, a session of its own', (host) => {
    const [capget, status, fds] = askOn(host, ['capget', 'ids', 'report'], { landlock: { read: ['/'] } });
    const none = '0'.repeat(16);
    expect(capget).toMatchObject({ effective: none, permitted: none, inheritable: none });
    expect(status.euid).toBe(host === 'ordinary user' ? 1000 : host.startsWith('root') ? 0 : process.getuid?.());
    expect(fds.status).toMatchObject({ noNewPrivs: 1, sid: fds.status.pid, sigBlk: none, sigIgn: none, sigCgt: none });
    expect(fds.fds.map(({ fd }) => fd)).toEqual([0, 1, 2]);
    expect(Object.keys(fds.env).sort()).toEqual(['HOME', 'LANG', 'PATH', 'TERM']);
  });

  test.each(names)('%s: nothing is written but what is asked', (host) => {
    const directory = temporary({ 'mine/file': 'x', 'shown/file': 'x' });
    const questions: Question[] = [
      ['create', '/tmp/cloister-fallback', 'x'],
      ['create', `${directory}/mine/new`, 'x'],
      ['append', `${directory}/mine/file`, 'x'],
      ['unlink', `${directory}/mine/file`],
      ['create', `${directory}/shown/new`, 'x'],
      ['read', `${directory}/shown/file`],
      ['read', `${directory}/mine/file`],
      ['create', '/dev/null', 'x'],
      ['mount', 'none', '/tmp', 'tmpfs', 0],
    ];
    const bind = (name: string, readonly: boolean) => ({ type: 'bind', source: `${directory}/${name}`, target: `${directory}/${name}`, readonly }) as const;
    const errnos = (options: SpawnOptions) => askOn(host, questions, options).map(({ errno }) => errno);
    // /dev/null is there already: what `create` says of it.
    const denied = ['EACCES', 'EACCES', 'EACCES', 'EACCES', 'EACCES', 'EACCES', 'EACCES', null, 'EPERM'];
    expect(errnos({})).toEqual(denied);
    // Host root's directory cannot be written to by who is somebody else there.
    expect(errnos({ mounts: [bind('mine', false), bind('shown', true)] })).toEqual(['EACCES', null, null, null, 'EACCES', null, 'ENOENT', null, 'EPERM']);
  });

  test.each(names)('%s: secrets and other processes', (host) => {
    const [secrets, home, first, own, kill, trace, name] = askOn(host, [
      ['read', '/etc/shadow'],
      ['ls', '/root'],
      ['read', '/proc/1/cmdline'],
      ['read', '/proc/self/comm'],
      ['kill', process.pid, 'SIGCONT'],
      ['ptrace', process.pid],
      ['read', '/etc/passwd'],
    ]);
    expect([secrets.errno, home.errno, first.errno]).toEqual(['EACCES', 'EACCES', 'EACCES']);
    expect([own.errno, kill.errno, trace.errno, name.errno]).toEqual([null, 'EPERM', 'EPERM', null]);
  });

  test.each(names)('%s: the network', (host) => {
    const questions: Question[] = [
      ['bind-tcp', '127.0.0.1', 0],
      ['connect-tcp', '127.0.0.1', 1],
    ];
    const errnos = (options: SpawnOptions) => askOn(host, questions, options).map(({ errno }) => errno);
    expect(errnos({})).toEqual(['EACCES', 'EACCES']);
    expect(errnos({ network: 'host' })).toEqual([null, 'ECONNREFUSED']);
    expect(errnos({ landlock: { connectTcp: [1] } })).toEqual(['EACCES', 'ECONNREFUSED']);
  });

  test('a terminal, limits, a time limit, the end of the parent', () => {
    expect(runOn('root', 'sh', ['-c', 'test -t 0 && echo yes'], { tty: true }).result?.stdout).toBe('yes\r\n');
    const [{ nofile }] = askOn('root', ['rlimits'], { rlimits: { nofile: 16 } });
    expect(nofile).toEqual({ soft: 16, hard: 16 });
    expect(runOn('filtered', 'sleep', ['60'], { timeout: 1, killSignal: 'SIGTERM' }).result).toMatchObject({ reason: 'timeout', signal: 'SIGTERM' });
    const options = {
      init: true,
      hostname: 'x',
      sysctl: { 'net.ipv4.ip_forward': '1' },
      capabilities: ['CAP_NET_RAW'],
      timeOffsets: { monotonic: 1 },
      umask: 0o77,
    } as const;
    expect(runOn('root', 'true', [], options).result?.isolation.missing.filter((name) => !name.startsWith('namespaces.') && name !== 'user.groups')).toEqual([
      ...['rootfs', 'hostname', 'timeOffsets', 'sysctl', 'init', 'capabilities'],
    ]);
  });

  test('what it cannot stand in for', () => {
    const { error } = runOn('filtered', 'true', [], {
      rootfs: '/srv',
      mounts: [
        { type: 'tmpfs', target: '/x' },
        { type: 'bind', source: '/usr', target: '/y' },
      ],
    });
    expect(error?.code).toBe('ERR_CLOISTER_FALLBACK');
    expect(error?.message.split('\n')[0]).toMatchInlineSnapshot(
      `"this host gives no namespaces, and Landlock cannot stand in for rootfs, mounts[0] (tmpfs /x), mounts[1] (bind /y)"`,
    );
  });

  test('a program that it may not execute', () => {
    const directory = temporary();
    writeFileSync(`${directory}/program`, '#!/bin/sh\n', { mode: 0o755 });
    const { error } = runOn('root', `${directory}/program`, []);
    expect(error?.message.replaceAll(directory, 'DIR')).toMatchInlineSnapshot(`
      "EACCES: execute the program DIR/program (execve): DIR/program exists inside, but may not be executed
        With \`landlock\`, DIR/program, and its interpreter or dynamic loader if it has one, must be below paths of \`execute\`, if that is given. Else it lacks the x permission for this user, or is on a mount that is noexec."
    `);
  });

  test('nothing is left open, started or failed, nor of what was tried', () => {
    const script = `
      import { readdirSync } from 'node:fs';
      import { runIsolated } from 'cloister';
      const count = () => readdirSync('/proc/self/fd').length;
      await runIsolated('true', { fallback: 'landlock' });
      const before = count();
      for (let i = 0; i < 5; i++) {
        await runIsolated('true', { fallback: 'landlock', timeout: 60_000 });
        await runIsolated('/no/such', { fallback: 'landlock' }).catch(() => {});
        await runIsolated('true', { fallback: 'landlock', landlock: { read: ['/no/such'] } }).catch(() => {});
        await runIsolated('true', { fallback: 'landlock', rootfs: '/srv' }).catch(() => {});
      }
      console.log(JSON.stringify([before, count()]));`;
    for (const host of ['filtered', 'root'] as const) {
      const [before, after] = withoutNamespaces(host, script) as [number, number];
      expect([host, after]).toEqual([host, before]);
    }
  });

  test('the plan', () => {
    const script = `
      import { explain } from 'cloister';
      const { steps } = await explain('true', [], { fallback: 'landlock' });
      console.log(JSON.stringify(steps.map(({ step }) => step)));`;
    const steps = withoutNamespaces('ordinary user', script) as string[];
    expect(steps.filter((step, index) => step !== steps[index - 1] && !step.startsWith('allow by Landlock'))).toMatchInlineSnapshot(`
      [
        "make the namespaces",
        "reset ignored signals",
        "die with the parent",
        "connect the streams",
        "begin a session",
        "close all other descriptors",
        "enter the working directory /",
        "make a Landlock ruleset",
        "set the umask",
        "leave the session keyring of the host",
        "drop capabilities",
        "set no_new_privs",
        "die with the parent",
        "restrict by Landlock",
        "unblock signals",
        "filter system calls",
        "execute the program true",
      ]
    `);
  });
});

describe('a host with namespaces', () => {
  testNeeding(['user-namespaces'])('is asked for them first', async () => {
    const { isolation } = await runIsolated('true', [], { fallback: 'landlock' });
    expect(isolation).toMatchObject({ level: 'namespaces', landlock: false, missing: [] });
  });

  test('privileges that could be gained', async () => {
    await expect(runIsolated('true', [], { fallback: 'landlock', noNewPrivileges: false })).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'noNewPrivileges' takes true with fallback: 'landlock'; got false]`,
    );
  });
});
