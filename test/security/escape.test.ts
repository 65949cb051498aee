// Each of these worked once, on this library or on another: PEERS of this field have CVE numbers for most of them.

import { execFileSync } from 'node:child_process';
import { closeSync, copyFileSync, openSync, readlinkSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { explain, type IsolationError, Namespace, runIsolated, spawnIsolated } from 'cloister';
import { describe, expect, onTestFinished, test } from 'vitest';
import { fixture, repository } from '../helpers/fixtures.js';
import { testNeeding } from '../helpers/lane.js';
import { ask } from '../helpers/probe.js';
import { smallRoot } from '../integration/trees.js';

const descriptors = Array.from({ length: 90 }, (_, index) => index + 3);

describe('a name inside that leads to a descriptor of the host (CVE-2024-21626)', () => {
  const hostile = (): string => {
    const root = smallRoot();
    for (const fd of descriptors) symlinkSync(`/proc/self/fd/${fd}`, join(root, `w${fd}`));
    return root;
  };

  test('is no working directory', async () => {
    const rootfs = hostile();
    const found: string[] = [];
    for (const fd of descriptors) {
      const error: IsolationError | undefined = await runIsolated('/bin/probe', ['cwd'], { rootfs, readonly: true, cwd: `/w${fd}` }).then(
        ({ stdout }) => void found.push(stdout),
        (refused: IsolationError) => refused,
      );
      if (error && error.errnoName !== 'ELOOP' && error.errnoName !== 'ENOENT') found.push(error.message);
    }
    expect(found).toEqual([]);
  });

  test('is no program', async () => {
    const rootfs = hostile();
    // One of them is a program of the host's.
    const program = openSync(fixture('probe'), 'r');
    onTestFinished(() => closeSync(program));
    expect(descriptors).toContain(program);
    const found: string[] = [];
    for (const fd of descriptors) {
      await runIsolated(`/w${fd}`, ['ids'], { rootfs, readonly: true }).then(
        ({ stdout }) => found.push(stdout),
        (refused: IsolationError) => refused.step === 'execute the program' || found.push(refused.message),
      );
    }
    expect(found).toEqual([]);
  });
});

testNeeding(['root'])('with init, the program of a sandbox is never the host’s node (CVE-2019-5736)', async () => {
  // /proc/self/exe is what the child is before exec. Who could write to node gets an init in between, asked for or not; here it is.
  const root = smallRoot();
  symlinkSync('/proc/self/exe', join(root, 'bin/app'));
  const child = spawnIsolated('/bin/app', [], { rootfs: root, readonly: true, init: true, stdio: 'ignore' });
  await child.spawned;
  expect(readlinkSync(`/proc/${child.pid}/exe`)).toMatch(/memfd:cloister-init/);
  await child[Symbol.asyncDispose]();
});

test('the session keyring of the host is left', () => {
  // A host with a session keyring of its own, as a login has: without one, each user begins with another anyway.
  const script = `
    import { execFileSync } from 'node:child_process';
    import { runIsolated } from 'cloister';
    const [probe] = process.argv.slice(1);
    const mounts = [{ type: 'bind', source: probe, target: '/probe', readonly: true }];
    // Which keyring it has can only be asked without the filter of calls.
    const inside = await runIsolated('/probe', ['keyctl-session'], { mounts, seccomp: 'unconfined' });
    console.log(execFileSync(probe, ['keyctl-session'], { encoding: 'utf8' }) + inside.stdout);`;
  const words = ['syscall', 'keyctl', '1', '0', '0', '0', '0', '0', '--', 'exec', process.execPath, '--input-type=module', '-e', script, fixture('probe')];
  const [joined, outside, inside] = execFileSync(fixture('probe'), words, { encoding: 'utf8', cwd: repository })
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { errno: string | null; keyring?: number });
  expect([joined?.errno, outside?.errno, inside?.errno]).toEqual([null, null, null]);
  expect(inside?.keyring).not.toBe(outside?.keyring);
});

testNeeding(['root'])('one sandbox with CAP_SYS_ADMIN does not change the devices of the next', async () => {
  const attack = 'mount -o remount,bind,rw /dev; rm -f /dev/urandom; echo NOT-RANDOM > /dev/urandom; ls -l /dev/urandom';
  await runIsolated('sh', ['-c', attack], { capabilities: ['CAP_SYS_ADMIN'] });
  const [device] = await ask([['stat', '/dev/urandom']]);
  expect(device).toMatchObject({ errno: null, rdev: '1:9' });
});

test('who enters namespaces that others are in does not share our memory on the way', async () => {
  const user = await Namespace.create('user');
  try {
    const { steps } = await explain('true', [], { namespaces: { user } });
    const [joiner] = steps.filter(({ syscall }) => syscall === 'clone3');
    expect(joiner?.args[0]).not.toContain('CLONE_VM');
    const first = steps.findIndex(({ syscall }) => syscall === 'setns');
    expect(steps.slice(0, first).some(({ syscall, args }) => syscall === 'prctl' && args[0] === 'PR_SET_DUMPABLE' && args[1] === '0')).toBe(true);
  } finally {
    user.close();
  }
});

test('no number is taken for another user', async () => {
  for (const user of ['4294967295:nogroup', '4294967296:nogroup', 'root:4294967295', 'root:4294967296']) {
    await expect(runIsolated('true', { user, namespaces: { user: 'host', mount: 'host' } })).rejects.toMatchObject({ code: 'ERR_CLOISTER_USER' });
  }
});

test('as many descriptors as there can be do not end the start too early', async () => {
  const root = smallRoot();
  copyFileSync(fixture('true'), join(root, 'bin/true'));
  for (let i = 0; i < 30; i++) {
    const { exitCode, reason } = await runIsolated('/bin/true', [], { rootfs: root, readonly: true, stdio: Array<'ignore'>(32).fill('ignore') });
    expect([exitCode, reason]).toEqual([0, 'exit']);
  }
});
