import { once } from 'node:events';
import { type IsolationError, runIsolated, type SpawnOptions, spawnIsolated } from 'cloister';
import { describe, expect, test, vi } from 'vitest';
import { census, difference, settled } from '../helpers/census.js';
import { inChild } from '../helpers/harness.js';
import { fixturesDirectory, insideFixture, parseAnswer, startProbe, toArguments, withFixtures } from '../helpers/probe.js';
import { eachOf, Marker, story } from './story.js';

const probe = (...args: Parameters<typeof toArguments>) => [insideFixture('probe'), toArguments(...args)] as const;
const spawnTrue = (options: SpawnOptions = {}) => spawnIsolated(insideFixture('true'), [], withFixtures(options));

/** For a child process's script. */
const mount = `{ type: 'bind', source: ${JSON.stringify(fixturesDirectory())}, target: '/probe', readonly: true }`;
const sleeper = `['/probe/probe', ['sleep'], { mounts: [${mount}], env: { CLOISTER_MARKER: process.argv[1] }`;

describe('the order of events', () => {
  test('a program that ends', async () => {
    expect(await story(spawnTrue())).toEqual(['spawn', 'spawned', 'exit 0 null', 'exited exit', 'close 0 null']);
  });

  test('a program that is killed', async () => {
    const child = startProbe(['sleep']).process;
    child.once('spawn', () => child.kill('SIGKILL'));
    expect(await story(child)).toEqual(['spawn', 'spawned', 'exit null SIGKILL', 'exited signal', 'close null SIGKILL']);
  });

  test.each([
    ['no such program', '/no/such/program', {}],
    ['a program that may not be executed', insideFixture('not-executable'), {}],
    ['a mount that has no source', insideFixture('true'), { mounts: [{ type: 'bind', source: '/no/such', target: '/mnt' }] }],
    ['no such user', insideFixture('true'), { user: 'nobody-of-that-name' }],
    ['no such program, with a terminal', '/no/such/program', { tty: true }],
    ['no such user, with a terminal', insideFixture('true'), { user: 'nobody-of-that-name', tty: true }],
    ['no such program, with init', '/no/such/program', { init: true }],
    ['no such directory to begin in', insideFixture('true'), { cwd: '/no/such', init: true, tty: true }],
  ] satisfies [string, string, SpawnOptions][])('a failed start: %s', async (_name, command, options) => {
    const child = spawnIsolated(command, [], withFixtures(options as SpawnOptions));
    const told = await story(child);
    const errors: unknown[] = await Promise.all([child.spawned, child.exited].map((promise) => promise.catch((e) => e)));
    expect(errors[0]).toBe(errors[1]);
    const { code } = errors[0] as IsolationError;
    expect(told).toEqual([`error ${code}`, `spawned rejects ${code}`, `exited rejects ${code}`, 'close null null']);
    expect([child.pid, child.exitCode, child.signalCode]).toEqual([undefined, null, null]);
    expect(child.kill('SIGKILL')).toBe(false);
  });

  test('the error of the event is that of the promises', async () => {
    const child = spawnIsolated('/no/such/program');
    const [error] = await once(child, 'error');
    expect(error.message).toMatchInlineSnapshot(`
      "ENOENT: execute the program /no/such/program (execve): there is no /no/such/program in the root
        The path is looked up inside the sandbox, not on the host. \`mounts\` can bring it in."
    `);
    await expect(child.spawned).rejects.toBe(error);
    await expect(child.exited).rejects.toBe(error);
  });

  test('what a listener throws does not stop the rest', async () => {
    const { stdout, exitCode } = await inChild(`
      import { spawnIsolated } from 'cloister';
      process.on('uncaughtException', (error) => console.log('uncaught', error.message));
      const child = spawnIsolated('/bin/true');
      for (const event of ['spawn', 'exit', 'close']) child.on(event, () => { console.log(event); throw new Error('in ' + event); });
      child.exited.then(({ reason }) => console.log('exited', reason));
    `);
    // The microtasks of a callback run before its ticks.
    expect(stdout.split('\n').sort()).toEqual(
      ['', 'spawn', 'uncaught in spawn', 'exit', 'exited exit', 'uncaught in exit', 'close', 'uncaught in close'].sort(),
    );
    expect(exitCode).toBe(0);
  });
});

describe('errors that nobody looks at', () => {
  test('are loud', async () => {
    const { exitCode, stderr } = await inChild(`
      import { spawnIsolated } from 'cloister';
      spawnIsolated('/no/such/program');
    `);
    expect(exitCode).toBe(1);
    expect(stderr).toContain('/no/such/program');
  });

  test.each(['spawned', 'exited'])('are not, once %s has been read', async (promise) => {
    const { exitCode, stderr, stdout } = await inChild(`
      import { spawnIsolated } from 'cloister';
      process.on('unhandledRejection', () => console.log('unhandled'));
      const child = spawnIsolated('/no/such/program');
      child.${promise};
      child.on('close', (...args) => console.log('close', ...args));
    `);
    expect({ exitCode, stderr, stdout }).toEqual({ exitCode: 0, stderr: '', stdout: 'close null null\n' });
  });

  test('are told to a listener although a promise has been read', async () => {
    const child = spawnIsolated('/no/such/program');
    const seen = vi.fn();
    child.on('error', seen);
    const error = await child.exited.catch((e) => e);
    expect(seen.mock.calls).toEqual([[error]]);
  });

  test('a kill before the start is no unhandled rejection', async () => {
    const { exitCode, stdout, stderr } = await inChild(`
      import { spawnIsolated } from 'cloister';
      const child = spawnIsolated('/bin/true');
      child.kill('SIGKILL');
      child.on('close', (...args) => console.log('close', ...args));
    `);
    expect({ exitCode, stderr, stdout }).toEqual({ exitCode: 0, stderr: '', stdout: 'close null SIGKILL\n' });
  });
});

describe('before spawn', () => {
  test('there is no pid', async () => {
    const child = spawnTrue();
    expect(child.pid).toBeUndefined();
    await Promise.resolve();
    expect(child.pid).toBeUndefined();
    await once(child, 'spawn');
    expect(child.pid).toBeGreaterThan(1);
    await child.exited;
  });

  const points: [string, () => Promise<unknown>][] = [
    ['at once', async () => {}],
    ['after a microtask', () => Promise.resolve()],
    ['after a tick', () => new Promise<void>((resolve) => process.nextTick(resolve))],
    ['after a turn of the loop', () => new Promise<void>((resolve) => setImmediate(resolve))],
  ];
  for (const options of [{}, { init: true }, { tty: true }, { init: true, tty: true }]) {
    test.each(points)(`SIGKILL %s (${JSON.stringify(options)})`, async (_name, point) => {
      const child = spawnIsolated(...probe(['sleep']), withFixtures(options));
      const told = story(child);
      await point();
      const wasEarly = child.pid === undefined;
      expect([child.kill('SIGKILL'), child.killed]).toEqual([true, true]);
      const start = wasEarly ? ['spawned rejects ERR_CLOISTER_NOT_STARTED'] : ['spawn', 'spawned'];
      const all = await told;
      expect(all.toSorted()).toEqual([...start, 'exit null SIGKILL', 'exited signal', 'close null SIGKILL'].toSorted());
      expect(all.indexOf('exit null SIGKILL')).toBeLessThan(all.indexOf('exited signal'));
      expect(await child.exited).toMatchObject({ exitCode: null, signal: 'SIGKILL', reason: 'signal' });
    });
  }

  test('other signals are delivered after exec', async () => {
    // The program cannot have a handler by then: it would be ended by it, as any other.
    const child = startProbe(['sleep']).process;
    expect(child.kill('SIGTERM')).toBe(true);
    expect(await story(child)).toEqual(['spawn', 'spawned', 'exit null SIGTERM', 'exited signal', 'close null SIGTERM']);
  });

  test('several signals are kept, in order', async () => {
    const child = startProbe(['sleep']).process;
    expect([child.kill('SIGWINCH'), child.kill('SIGUSR1'), child.kill('SIGTERM')]).toEqual([true, true, true]);
    expect(await child.exited).toMatchObject({ signal: 'SIGUSR1', reason: 'signal' });
  });

  test('the message of the rejection', async () => {
    const child = spawnTrue();
    child.kill('SIGKILL');
    const error: Error = await child.spawned.then(
      () => Promise.reject(),
      (e) => e,
    );
    expect(error.message).toMatchInlineSnapshot(`"it was ended before its program began (signal)"`);
  });

  test('namespaces', async () => {
    const child = spawnTrue();
    expect(() => child.namespaces).toThrowErrorMatchingInlineSnapshot(`[IsolationError: its namespaces exist from \`spawned\` on, to its end]`);
    await child.exited;
    expect(() => child.namespaces).toThrow('its namespaces exist from `spawned` on, to its end');
  });
});

describe('signals', () => {
  test.each(['SIGTERM', 'SIGINT', 'SIGUSR2', 'SIGQUIT'] as const)('%s ends a PID 1 that has no handler', async (signal) => {
    const { process: child, lines } = startProbe(['sleep']);
    await lines.until('ready');
    expect(child.kill(signal)).toBe(true);
    expect(await child.exited).toMatchObject({ exitCode: null, signal, reason: 'signal' });
    expect([child.exitCode, child.signalCode, child.killed]).toEqual([null, signal, true]);
  });

  test('a number of a signal is as good as its name', async () => {
    const { process: child, lines } = startProbe(['sleep']);
    await lines.until('ready');
    expect([child.kill(0), child.killed]).toEqual([true, false]);
    child.kill(15);
    expect(await child.exited).toMatchObject({ signal: 'SIGTERM' });
  });

  test('without a name it is SIGTERM', async () => {
    const { process: child, lines } = startProbe([['trap', 'TERM', 'it was SIGTERM']]);
    await lines.until('ready');
    child.kill();
    expect(await lines.next()).toBe('it was SIGTERM');
    expect(await child.exited).toMatchObject({ exitCode: 0, signal: null, reason: 'exit' });
  });

  test.each(['SIGCHLD', 'SIGWINCH', 'SIGURG', 'SIGCONT'] as const)('%s ends nothing', async (signal) => {
    const { process: child, lines } = startProbe([['trap', 'TERM', 'alive']]);
    await lines.until('ready');
    expect(child.kill(signal)).toBe(true);
    child.kill('SIGTERM');
    await lines.until('alive');
    expect(await child.exited).toMatchObject({ exitCode: 0 });
  });

  test('an ignored one leaves it alive', async () => {
    const { process: child, lines } = startProbe([['ignore', 'TERM']]);
    await lines.until('ready');
    expect(child.kill('SIGTERM')).toBe(true);
    child.kill('SIGKILL');
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL' });
  });

  test('a blocked one is delivered when it is waited for', async () => {
    const { process: child, lines } = startProbe([
      ['block', 'TERM'],
      ['exit', 7],
    ]);
    await lines.until('ready');
    expect(child.kill('SIGTERM')).toBe(true);
    expect(parseAnswer('block', await lines.next())).toMatchObject({ signal: 'SIGTERM' });
    expect(await child.exited).toMatchObject({ exitCode: 7, signal: null });
  });

  test('a signal that is none', async () => {
    const child = spawnTrue();
    expect(() => child.kill('SIGNONE' as 'SIGTERM')).toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'signal' takes a signal's name or number; got "SIGNONE"]`,
    );
    expect(() => child.kill(65)).toThrowErrorMatchingInlineSnapshot(`[TypeError: option 'signal' takes a signal's name or number; got 65]`);
    await child.exited;
  });

  test('after the end there is nobody to signal', async () => {
    const child = spawnTrue();
    const kills: boolean[] = [];
    child.once('exit', () => kills.push(child.kill('SIGKILL')));
    await child.exited;
    kills.push(child.kill('SIGKILL'), child.kill(0), child.kill('SIGTERM'));
    expect([kills, child.killed]).toEqual([[false, false, false, false], false]);
  });

  test('a process that is stopped can be killed', async () => {
    const { process: child, lines } = startProbe(['sleep']);
    await lines.until('ready');
    expect(child.kill('SIGSTOP')).toBe(true);
    child.kill('SIGKILL');
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL' });
  });
});

describe('endings', () => {
  test('every exit code', async () => {
    const codes = Array.from({ length: 256 }, (_, code) => code);
    const seen: unknown[] = [];
    await eachOf(codes, 8, async (code) => {
      const { exitCode, signal, reason } = await runIsolated(...probe([['exit', code]]), withFixtures({}));
      seen[code] = { exitCode, signal, reason };
    });
    expect(seen).toEqual(codes.map((exitCode) => ({ exitCode, signal: null, reason: 'exit' })));
  });

  test.each(['SEGV', 'ABRT', 'BUS', 'FPE', 'TERM', 'USR1', 'HUP'])('SIG%s, sent by itself', async (name) => {
    const result = await runIsolated(...probe([['signal', name]]), withFixtures({ init: true }));
    expect(result).toMatchObject({ exitCode: null, signal: `SIG${name}`, reason: 'signal' });
  });

  test('abort', async () => {
    const result = await runIsolated(...probe(['abort']), withFixtures({ init: true }));
    expect(result).toMatchObject({ exitCode: null, signal: 'SIGABRT', reason: 'signal' });
  });

  test('abort of a PID 1: the kernel drops its SIGABRT, and libc ends it by a fault', async () => {
    const result = await runIsolated(...probe(['abort']), withFixtures({}));
    expect(result).toMatchObject({ exitCode: null, signal: 'SIGSEGV', reason: 'signal' });
  });
});

describe('namespaces of a process', () => {
  test('are opened when first read and closed at its end', async () => {
    const { process: child, lines } = startProbe(['sleep']);
    await lines.until('ready');
    const before = census(['descriptors']);
    const { uts } = child.namespaces;
    expect(child.namespaces.uts).toBe(uts);
    const opened = difference(before, census(['descriptors'])).filter((line) => line.includes('uts'));
    expect(opened).toEqual([expect.stringMatching(/^descriptors: 1 more: uts/)]);
    expect(await uts.hostname()).toBe('cloister');
    child.kill('SIGKILL');
    await child.exited;
    await expect(uts.hostname()).rejects.toThrow();
    expect(difference(before, census(['descriptors'])).filter((line) => line.includes('uts'))).toEqual([]);
  });
});

describe('disposal', () => {
  test.each([{}, { init: true }])('kills everything inside (%o)', async (options) => {
    const marker = new Marker();
    const { process: child, lines } = startProbe([['children', 5, 'quiet']], { env: marker.env, ...options });
    await lines.next();
    expect(marker.pids().length).toBeGreaterThanOrEqual(6);
    await child[Symbol.asyncDispose]();
    expect(marker.processes()).toEqual([]);
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL', reason: 'signal' });
    await child[Symbol.asyncDispose]();
  });

  test('before the start', async () => {
    const child = spawnTrue();
    await child[Symbol.asyncDispose]();
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL', reason: 'signal' });
  });

  test('of a failed start', async () => {
    const child = spawnIsolated('/no/such/program');
    await once(child, 'error');
    await child[Symbol.asyncDispose]();
    await expect(child.exited).rejects.toThrow('/no/such/program');
  });

  test('children that are left when PID 1 ends are gone at exited', async () => {
    const marker = new Marker();
    const { process: child } = startProbe(
      [
        ['orphans', 5, 'quiet'],
        ['exit', 0],
      ],
      { env: marker.env },
    );
    await child.exited;
    expect(marker.processes()).toEqual([]);
  });
});

describe('ref and unref', () => {
  const script = (when: string, options: string) => `
    import { spawnIsolated } from 'cloister';
    const child = spawnIsolated(...${sleeper}, stdio: ['ignore', 'pipe', 'ignore'], ${options} }]);
    ${when === 'at once' ? 'child.unref();' : ''}
    child.stdout.unref();
    child.stdout.once('data', () => {
      console.log('ready');
      ${when === 'at once' ? '' : 'child.unref();'}
    });
    if (${when === 'at once'}) child.once('spawn', () => console.log('spawn'));
  `;
  for (const options of ['', 'init: true', 'timeout: 100_000']) {
    test.each(['at once', 'while it runs'])(`an unref'd one, %s, lets the host end, and dies with it (${options})`, async (when) => {
      const marker = new Marker();
      // Data is only seen as long as the loop lives: so `stdout` is what keeps it, until then.
      const text = script(when, options).replace(when === 'at once' ? '' : 'child.stdout.unref();', '');
      const ready = when === 'at once' ? text : text.replace("console.log('ready');", "console.log('ready'); child.stdout.unref();");
      const { exitCode, signal, stdout, stderr } = await inChild(ready, { args: [marker.value] });
      expect({ exitCode, signal, stderr }).toEqual({ exitCode: 0, signal: null, stderr: '' });
      if (when !== 'at once') expect(stdout).toBe('ready\n');
      await settled(() => marker.processes(), { what: 'the sandbox of a host that has ended' });
    });
  }

  test('a ref keeps it', async () => {
    const { exitCode, stdout } = await inChild(`
      import { spawnIsolated } from 'cloister';
      const child = spawnIsolated('/bin/sh', ['-c', 'exit 5'], { stdio: 'ignore' });
      child.unref();
      child.ref();
      child.on('close', (code) => console.log('close', code));
    `);
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: 'close 5\n' });
  });
});

test.each([{}, { init: true }, { tty: true }, { init: true, tty: true }])('nothing that it says comes before spawn (%o)', async (options: SpawnOptions) => {
  await eachOf(Array.from({ length: 100 }), 4, async () => {
    const child = spawnIsolated(...probe([['write-fd', 1, 'said']]), withFixtures(options));
    const events: string[] = [];
    child.once('spawn', () => events.push('spawn'));
    child.stdout?.once('data', () => events.push(`data of ${typeof child.pid}`));
    child.stdout?.resume();
    await once(child, 'close');
    expect(events).toEqual(['spawn', 'data of number']);
  });
});
