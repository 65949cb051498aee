// JavaScript decides system calls, and is told of those that were refused.
import { closeSync, openSync, readdirSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { type Denial, runIsolated, type SeccompCall, type SeccompNotify, type SpawnOptions, spawnIsolated } from 'cloister';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { addressOf } from '../../lib/security/seccomp/denial.js';
import { inChild } from '../helpers/harness.js';
import { describeNeeding } from '../helpers/lane.js';
import { type AnswersTo, ask, insideFixture, type Question, toArguments, withFixtures } from '../helpers/probe.js';
import { parseAnswers } from '../helpers/questions.js';

const decided = (notify: SeccompNotify, more: SpawnOptions = {}) => ({ ...more, seccomp: { notify } });

/** The answers, and what was told as denied. */
async function watched<const Q extends readonly Question[]>(questions: Q, options: SpawnOptions): Promise<{ answers: AnswersTo<Q>; denials: Denial[] }> {
  const process = spawnIsolated(insideFixture('probe'), toArguments(questions), withFixtures(options));
  const denials: Denial[] = [];
  process.on('denied', (denial) => denials.push(denial));
  const output = text(process.stdout as NodeJS.ReadableStream);
  await process.exited;
  return { answers: parseAnswers(questions, await output, ''), denials };
}

describeNeeding(['seccomp-notify', 'user-namespaces'])('seccomp.notify', () => {
  const warned = vi.spyOn(process, 'emitWarning');
  const warnings = (): string[] => warned.mock.calls.map(([warning]) => String(warning));
  beforeEach(() => void warned.mockReset().mockImplementation(() => undefined));
  afterEach(() => void expect(warnings()).toEqual([]));

  test('answers with an errno, a value, a descriptor, or lets it go on', async () => {
    const fd = openSync('/proc/sys/kernel/ostype', 'r');
    const seen: string[] = [];
    const answers = await ask(
      [
        ['mkdir', '/tmp/refused'],
        ['mkdir', '/tmp/pretended'],
        ['mkdir', '/tmp/made'],
        ['ls', '/tmp'],
        ['read', '/no/such/file'],
        ['syscall', 'getppid'],
      ],
      decided({
        mkdir: (call) => {
          const path = call.readString(call.args[0] as bigint) ?? '';
          seen.push(`${call.syscall} ${path}`);
          if (path.endsWith('refused')) return { errno: 'EROFS' };
          return path.endsWith('pretended') ? { value: 0 } : 'continue';
        },
        openat: async (call) => (call.readString(call.args[1] as bigint) === '/no/such/file' ? { fd } : 'continue'),
        getppid: () => ({ value: 0x7fffffff12345678n }),
      }),
    );
    closeSync(fd);
    expect(seen).toEqual(['mkdir /tmp/refused', 'mkdir /tmp/pretended', 'mkdir /tmp/made']);
    expect(answers.slice(0, 3).map(({ errno }) => errno)).toEqual(['EROFS', null, null]);
    expect(answers[3]).toMatchObject({ entries: ['made'] });
    expect(answers[4]).toMatchObject({ text: 'Linux\n' });
    expect(answers[5].result).toBe(Number(0x7fffffff12345678n));
  });

  test("'continue' gives no more than the profile does", async () => {
    const asked: string[] = [];
    const goOn = (call: SeccompCall) => {
      asked.push(call.syscall);
      return 'continue' as const;
    };
    const answers = await ask(
      [
        ['mount', 'none', '/tmp', 'tmpfs', 0],
        ['unshare', 'user'],
        ['syscall', 'socket', 40, 1, 0],
        ['syscall', 'socket', 1, 1, 0],
      ],
      decided({ mount: goOn, unshare: goOn, socket: goOn }),
    );
    expect(answers.map(({ errno }) => errno)).toEqual(['EPERM', 'EPERM', 'EAFNOSUPPORT', null]);
    expect(asked).toEqual(['mount', 'unshare', 'socket', 'socket']);
  });

  test('decides with a profile of one’s own as well', async () => {
    const profile = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['getppid'], action: 'SCMP_ACT_NOTIFY' }] };
    const [answer] = await ask([['syscall', 'getppid']], { seccomp: { profile, notify: { getppid: () => ({ value: 7 }) } } });
    expect(answer.result).toBe(7);
  });

  test('who decides and fails leaves the caller refused', async () => {
    const failing: SeccompNotify[string][] = [
      () => {
        throw new Error('thrown');
      },
      () => Promise.reject(new Error('rejected')),
      () => undefined as never,
      () => ({}) as never,
      () => ({ errno: 'ENOSUCH' }),
      () => ({ errno: 'EROFS', value: 1 }) as never,
      () => ({ value: 1.5 }),
      () => ({ fd: -1 }),
      async () => 'go on' as never,
    ];
    const results: unknown[] = [];
    for (const getppid of failing) {
      const { answers, denials } = await watched([['syscall', 'getppid']], decided({ getppid }));
      results.push([answers[0].errno, denials.length]);
    }
    expect(results).toEqual(failing.map(() => ['EPERM', 1]));
    expect(warnings()).toMatchInlineSnapshot(`
      [
        "seccomp.notify.getppid: thrown; the call is refused with EPERM",
        "seccomp.notify.getppid: rejected; the call is refused with EPERM",
        "seccomp.notify.getppid: the answer undefined is not 'continue', { errno }, { value } or { fd }; the call is refused with EPERM",
        "seccomp.notify.getppid: the answer {} is not 'continue', { errno }, { value } or { fd }; the call is refused with EPERM",
        "seccomp.notify.getppid: the answer { errno: 'ENOSUCH' } is not 'continue', { errno }, { value } or { fd }; the call is refused with EPERM",
        "seccomp.notify.getppid: the answer { errno: 'EROFS', value: 1 } is not 'continue', { errno }, { value } or { fd }; the call is refused with EPERM",
        "seccomp.notify.getppid: the answer { value: 1.5 } is not 'continue', { errno }, { value } or { fd }; the call is refused with EPERM",
        "seccomp.notify.getppid: the answer { fd: -1 } is not 'continue', { errno }, { value } or { fd }; the call is refused with EPERM",
        "seccomp.notify.getppid: the answer 'go on' is not 'continue', { errno }, { value } or { fd }; the call is refused with EPERM",
      ]
    `);
    warned.mockClear();
    // A descriptor that is not open is the kernel's to refuse.
    expect((await ask([['syscall', 'getppid']], decided({ getppid: () => ({ fd: 999_999 }) })))[0].errno).toBe('EBADF');
  });

  test('who never answers is not waited for', async () => {
    const [answer] = await ask([['syscall', 'getppid']], decided({ getppid: () => new Promise(() => {}) }));
    expect(answer.errno).toBe('EPERM');
    expect(warnings()).toEqual(['seccomp.notify.getppid: no answer within 5000 ms; the call is refused with EPERM']);
    warned.mockClear();
  });

  test('killed while it waits: nothing is left of it, and the late answer harms nobody', async () => {
    const late = new AbortController();
    let ended: Promise<unknown> | undefined;
    const call = await new Promise<SeccompCall>((resolve) => {
      const mkdir = (asked: SeccompCall) => {
        resolve(asked);
        return new Promise<'continue'>((answer) => late.signal.addEventListener('abort', () => setImmediate(() => answer('continue'))));
      };
      const child = spawnIsolated(insideFixture('probe'), ['mkdir', '/tmp/x'], withFixtures(decided({ mkdir })));
      late.signal.addEventListener('abort', () => child.kill('SIGKILL'));
      ended = child.exited;
    });
    const path = () => call.readString(call.args[0] as bigint);
    expect(path()).toBe('/tmp/x');
    late.abort();
    await ended;
    expect(path()).toBeUndefined();
  });

  test('memory is that of the caller, as long as it waits', async () => {
    const kept: SeccompCall[] = [];
    const read: unknown[] = [];
    await ask(
      [['mkdir', `/tmp/${'long/'.repeat(700)}`]],
      decided({
        mkdir: (call) => {
          kept.push(call);
          const at = call.args[0] as bigint;
          read.push(call.readString(at)?.length, call.readBytes(at, 5)?.toString(), call.readString(0n), call.readBytes(8n, 8), call.readBytes(at, 0)?.length);
          return { errno: 'EIO' };
        },
      }),
    );
    expect(read).toEqual([3505, '/tmp/', undefined, undefined, 0]);
    expect(kept.map((call) => [call.readString(call.args[0] as bigint), call.readBytes(call.args[0] as bigint, 5)])).toEqual([[undefined, undefined]]);
  });

  test('2,000 calls in a row, while the loop has its turns', async () => {
    let turns = 0;
    let count = 0;
    const turn = setInterval(() => turns++, 1);
    const questions = Array.from({ length: 500 }, () => ['syscall', 'getppid'] as const);
    const all = await Promise.all([0, 1, 2, 3].map(() => ask(questions, decided({ getppid: () => ({ value: ++count }) }))));
    clearInterval(turn);
    expect(new Set(all.flat().map((answer) => (answer as { result?: number }).result)).size).toBe(2000);
    expect(turns).toBeGreaterThan(10);
  });

  test('with an init, under a profile that refuses what hands the listener over', async () => {
    const profile = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['sendmsg', 'seccomp'], action: 'SCMP_ACT_ERRNO' }] };
    const [told, refused] = await ask(
      [
        ['syscall', 'getppid'],
        ['syscall', 'seccomp', 9],
      ],
      {
        init: true,
        // init itself tells its pidfd by sendmsg.
        seccomp: { profile: { ...profile, syscalls: [{ names: ['seccomp'], action: 'SCMP_ACT_ERRNO' }] }, notify: { getppid: () => ({ value: 5 }) } },
      },
    );
    expect([told.result, refused.errno]).toEqual([5, 'EPERM']);
    const [without] = await ask([['syscall', 'getppid']], { seccomp: { profile, notify: { getppid: () => ({ value: 6 }) } } });
    expect(without.result).toBe(6);
  });

  test('a program that cannot be started is told, though its directory was asked about', async () => {
    const failed = runIsolated('/no/such/program', decided({ openat: () => 'continue', faccessat: () => 'continue', read: () => 'continue' }));
    await expect(failed).rejects.toMatchObject({ code: 'ERR_CLOISTER_NO_PROGRAM' });
  });

  test('what outlives its process is refused, not free', async () => {
    const script = 'sh -c "read -r line <&3; mkdir /tmp/late" &';
    const options = decided({ mkdir: () => 'continue' }, { namespaces: { pid: 'host' }, stdio: ['ignore', 'ignore', 'pipe', 'pipe'] });
    const shell = spawnIsolated('sh', ['-c', script], options);
    const errors = text(shell.stderr as NodeJS.ReadableStream);
    await shell.exited;
    (shell.stdio[3] as unknown as NodeJS.WritableStream).end('now\n');
    expect(await errors).toMatch(/\/tmp\/late.*: Function not implemented/);
  });

  test('what is wrong in it is named', () => {
    const refusal = (options: object): string => {
      try {
        spawnIsolated('true', options as SpawnOptions);
      } catch (error) {
        return (error as TypeError).message;
      }
      return 'accepted';
    };
    const goOn = () => 'continue' as const;
    expect(
      [
        { seccomp: { notify: [] } },
        { seccomp: { notify: { opne: goOn } } },
        { seccomp: { notify: { openat: 'continue' } } },
        { seccomp: { notify: { execve: goOn } } },
        { seccomp: { notify: { capset: goOn } }, noNewPrivileges: false },
        { seccomp: { notify: {}, defaultAction: 'SCMP_ACT_ALLOW' } },
        { seccomp: { profile: 'strict', notify: {} } },
        { seccomp: { notify: { openat: goOn } }, detached: true },
      ].map(refusal),
    ).toMatchInlineSnapshot(`
      [
        "option 'seccomp.notify' takes an object: names of system calls, and functions that decide them; got an array of 0",
        "option 'seccomp.notify.opne' takes nothing: no system call has that name; got a function",
        "option 'seccomp.notify.openat' takes a function that decides; got "continue"",
        "option 'seccomp.notify.execve' takes nothing: starting or ending a program makes that call itself; got a function",
        "option 'seccomp.notify.capset' takes nothing: starting or ending a program makes that call itself; got a function",
        "option 'seccomp.defaultAction' takes nothing beside seccomp.notify: a profile is seccomp.profile there; got "SCMP_ACT_ALLOW"",
        "option 'seccomp.profile' takes 'default', or a profile: linux.seccomp of the OCI specification; got "strict"",
        "option 'seccomp.notify' takes nothing for a detached process: who decides lives here; got an instance of Object",
      ]
    `);
  });

  test('no descriptor is left, of a run or of one that failed', async () => {
    const open = () => readdirSync('/proc/self/fd').length;
    const once = () =>
      Promise.all([
        ask([['syscall', 'getppid']], decided({ getppid: () => ({ value: 1 }) })),
        runIsolated('/no/such', decided({ mkdir: () => 'continue' })).catch(() => {}),
      ]);
    await once();
    const before = open();
    for (let round = 0; round < 5; round++) await once();
    // What is made ahead may have been taken meanwhile.
    expect(open()).toBeLessThanOrEqual(before);
  });

  test('a worker that ends takes what it decides with it', async () => {
    const { exitCode, stdout, stderr } = await inChild(`
      import { Worker } from 'node:worker_threads';
      const worker = new Worker(\`
        import { spawnIsolated } from 'cloister';
        import { parentPort } from 'node:worker_threads';
        const child = spawnIsolated('sleep', ['100'], { seccomp: { notify: { clock_nanosleep: () => { parentPort.postMessage(child.pid); return new Promise(() => {}); } } } });
      \`, { eval: true });
      const [pid] = await new Promise((resolve) => worker.once('message', (pid) => resolve([pid])));
      await worker.terminate();
      try { process.kill(pid, 0); console.log('alive'); } catch (error) { console.log(error.code); }`);
    expect({ exitCode, stdout, stderr }).toEqual({ exitCode: 0, stdout: 'ESRCH\n', stderr: '' });
  });
});

describeNeeding(['seccomp-notify', 'user-namespaces'])("'denied'", () => {
  test('tells what the profile refused: which call, about what', async () => {
    const { answers, denials } = await watched(
      [
        ['mount', 'none', '/tmp', 'tmpfs', 0],
        ['unshare', 'user'],
        ['syscall', 'socket', 40, 1, 0],
        ['syscall', 'swapon', 's:/swap/file', 0],
        ['syscall', 'clone3', 0, 0],
        ['mkdir', '/tmp/fine'],
      ],
      {},
    );
    expect(answers.map(({ errno }) => errno)).toEqual(['EPERM', 'EPERM', 'EAFNOSUPPORT', 'EPERM', 'ENOSYS', null]);
    // ENOSYS is no refusal: another way is taken.
    expect(denials.map(({ pid, ...rest }) => rest)).toEqual([
      { kind: 'syscall', syscall: 'mount', path: '/tmp' },
      { kind: 'syscall', syscall: 'unshare' },
      { kind: 'syscall', syscall: 'socket' },
      { kind: 'syscall', syscall: 'swapon', path: '/swap/file' },
    ]);
    expect(denials.every(({ pid }) => typeof pid === 'number' && pid > 0)).toBe(true);
  });

  test('and where to', async () => {
    const seccomp = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['connect', 'bind', 'sendto'], action: 'SCMP_ACT_ERRNO', errnoRet: 111 }] };
    const { answers, denials } = await watched(
      [
        ['connect-tcp', '192.0.2.7', 443],
        ['connect-tcp', '2001:db8::1', 80],
      ],
      { seccomp },
    );
    expect(answers.map(({ errno }) => errno)).toEqual(['ECONNREFUSED', 'ECONNREFUSED']);
    expect(denials).toMatchObject([
      { syscall: 'connect', address: '192.0.2.7', port: 443 },
      { syscall: 'connect', address: '2001:db8::1', port: 80 },
    ]);
  });

  test('costs nothing where nobody listens', async () => {
    const [plain] = await ask(['status']);
    const { answers } = await watched(['status'], {});
    expect([plain.seccompFilters, answers[0].seccompFilters]).toEqual([1, 2]);
  });

  test('addresses in words', () => {
    const of = (...bytes: number[]) => addressOf(Buffer.from(bytes));
    const unix = (name: string) => addressOf(Buffer.concat([Buffer.from([1, 0]), Buffer.from(name)]));
    expect([of(2, 0, 1, 187, 10, 0, 0, 1), of(2), of(2, 0, 1), of(9, 9, 9), unix('/run/x\0rest'), unix('\0hidden'), unix('')]).toEqual([
      { address: '10.0.0.1', port: 443 },
      {},
      {},
      {},
      { path: '/run/x' },
      { path: '@hidden' },
      {},
    ]);
  });
});
