// A profile of AppArmor: asked for, or the default one where it is loaded.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { explain, runIsolated, spawnIsolated } from 'cloister';
import { describe, expect, test, vi } from 'vitest';
import { repository } from '../helpers/fixtures.js';
import { inChild } from '../helpers/harness.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';

const current = '/proc/self/attr/apparmor/current';
const attack = 'echo gone > /etc/attack && echo written';
const told = async (promise: Promise<unknown>): Promise<string> => {
  const error = await promise.then(
    () => undefined,
    (failure: Error & { code: string }) => failure,
  );
  return `${error?.code}: ${error?.message}`;
};

describe('what the option takes', () => {
  test.each([true, '', ' name', 'two\nlines', 7])('not %j', (apparmor) => {
    expect(() => spawnIsolated('true', { apparmor: apparmor as never })).toThrow(/^option 'apparmor' takes the name of a profile, or false; got /);
  });
});

testNeeding(['no-apparmor'])('a profile that is asked for is refused where AppArmor is off, and the receipt is that there is none', async () => {
  expect(await told(runIsolated('true', { apparmor: 'cloister-default' }))).toMatchInlineSnapshot(`
    "ERR_CLOISTER_LABEL: AppArmor is off on this host, so nothing can be confined by its profile cloister-default
      Leave apparmor out, or boot a kernel that has it with lsm=…,apparmor among its parameters (/sys/kernel/security/lsm lists what is on)."
  `);
  const { isolation } = await runIsolated('true', { apparmor: false });
  expect(isolation).toMatchObject({ apparmor: false });
});

describeNeeding(['apparmor'])('with AppArmor', () => {
  const apparmor = 'cloister-test';

  test.each([{}, { init: true }, { noNewPrivileges: false }, { user: { uid: 0, gid: 0 }, landlock: { write: ['/etc', '/dev'] } }])(
    'the program has the profile: %j',
    async (options) => {
      const { stdout, isolation } = await runIsolated('sh', ['-c', `cat ${current}; cat ${current}`], { apparmor, ...options });
      expect(stdout).toBe('cloister-test (enforce)\ncloister-test (enforce)\n');
      expect(isolation.apparmor).toEqual({ profile: 'cloister-test' });
    },
  );

  test('and is kept by it from what it may do without', async () => {
    const free = await runIsolated('sh', ['-c', attack], { apparmor: false });
    expect(free.stdout).toBe('written\n');
    const confined = await runIsolated('sh', ['-c', attack], { apparmor });
    expect(confined.stdout).toBe('');
    expect(confined.stderr).toContain('Permission denied');
  });

  test('the receipt is read back, with its mode', async () => {
    const child = spawnIsolated('cat', { apparmor });
    await child.spawned;
    expect(child.isolation?.apparmor).toEqual({ profile: 'cloister-test', mode: 'enforce' });
    child.stdin.end();
    expect((await child.exited).isolation.apparmor).toEqual({ profile: 'cloister-test', mode: 'enforce' });
  });

  test('it ends with whoever has started it, all the same', async () => {
    const { stdout } = await inChild(`
      import { writeSync } from 'node:fs';
      import { spawnIsolated } from 'cloister';
      const child = spawnIsolated('sleep', ['1000'], { apparmor: 'cloister-test', stdio: 'ignore' });
      await child.spawned;
      writeSync(1, String(child.pid));
      process.kill(process.pid, 'SIGKILL');
    `);
    const pid = Number(stdout);
    expect(pid).toBeGreaterThan(1);
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow('ESRCH'), { timeout: 30_000 });
  });

  test('one that is not loaded is refused', async () => {
    expect(await told(runIsolated('true', { apparmor: 'cloister-nowhere' }))).toMatchInlineSnapshot(`
      "ERR_CLOISTER_LABEL: ENOENT: confine by AppArmor cloister-nowhere (write): no profile of that name is loaded
        apparmor_parser -r FILE loads it, as root; that of this package is profiles/apparmor/cloister-default. apparmor: false goes without one."
    `);
  });

  test('explain() tells it', async () => {
    const steps = (await explain('true', [], { apparmor })).steps.filter(({ step }) => step.startsWith('confine by AppArmor'));
    expect(steps.map(({ side, step, syscall, args }) => `${side} ${step}: ${syscall}(${args.join(', ')})`)).toMatchInlineSnapshot(`
      [
        "child confine by AppArmor cloister-test: openat(</proc of the host>, "self/attr/apparmor/current", O_WRONLY|O_CLOEXEC, 00)",
        "child confine by AppArmor cloister-test: write(<AppArmor profile>, "changeprofile cloister-test")",
      ]
    `);
  });

  testNeeding(['root', 'program:apparmor_parser'])('the default one, once it is loaded, unasked: nothing is mounted inside, not even by who may', async () => {
    const parser = (...args: string[]): void => {
      const { status, stderr } = spawnSync('apparmor_parser', ['--skip-cache', ...args, join(repository, 'profiles/apparmor/cloister-default')], {
        encoding: 'utf8',
      });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    };
    const capable = { capabilities: ['CAP_SYS_ADMIN'], seccomp: 'unconfined', readonlyPaths: [] } as const;
    const mounting = `cat ${current}; mount -t tmpfs none /mnt && echo mounted; mount -o remount,rw /sys && echo remounted`;
    expect((await runIsolated('cat', [current])).stdout).toBe('unconfined\n');
    parser('--replace');
    try {
      const { stdout, stderr, isolation } = await runIsolated('sh', ['-c', mounting], capable);
      expect(stdout).toBe('cloister-default (enforce)\n');
      expect(stderr).toMatch(/permission denied|cannot mount/i);
      expect(isolation.apparmor).toEqual({ profile: 'cloister-default' });
      const free = await runIsolated('sh', ['-c', mounting], { ...capable, apparmor: false });
      expect(free.stdout).toContain('unconfined\nmounted\n');
      expect(free.isolation.apparmor).toBe(false);
      // What programs do every day.
      const script =
        'set -e; cd /tmp; echo text > a; mv a b; ln -s b c; cat c; python3 -c "import subprocess; subprocess.run([\'true\'], check=True)"; kill -0 $$';
      for (const options of [{}, { init: true }, { user: { uid: 7, gid: 7 } }]) {
        const plain = await runIsolated('sh', ['-c', `${script}; sleep 1000 & kill $!; wait $! 2>/dev/null || echo ended`], options);
        expect(plain).toMatchObject({ stdout: 'text\nended\n', stderr: '', exitCode: 0, isolation: { apparmor: { profile: 'cloister-default' } } });
      }
      const timed = await runIsolated('sleep', ['1000'], { timeout: 500, killSignal: 'SIGTERM', killGrace: 100 });
      expect(timed.reason).toBe('timeout');
    } finally {
      parser('--remove');
    }
    const after = await runIsolated('cat', [current]);
    expect(after.stdout).toBe('unconfined\n');
    expect(after.isolation.apparmor).toBe(false);
  });
});
