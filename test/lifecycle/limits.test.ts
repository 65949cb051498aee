import { type RunOptions, runIsolated, type SpawnOptions, spawnIsolated } from 'cloister';
import { describe, expect, test, vi } from 'vitest';
import { insideFixture, type Question, startProbe, toArguments, withFixtures } from '../helpers/probe.js';
import { story } from './story.js';

const run = (questions: readonly Question[], options: Omit<RunOptions, 'encoding'>) =>
  runIsolated(insideFixture('probe'), toArguments(questions), withFixtures(options));

// Times here are only ever "at once" or "never in this test": what is waited for is the event itself.
const soon = 1;
const never = 1_000_000;

describe('timeout', () => {
  test('while it runs', async () => {
    // Long enough that it has begun, on any machine; the signal comes from the timer whenever that is.
    const child = startProbe(['sleep'], { timeout: 500 }).process;
    expect(await story(child)).toEqual(['spawn', 'spawned', 'exit null SIGKILL', 'exited timeout', 'close null SIGKILL']);
  });

  test('before exec', async () => {
    const child = startProbe(['sleep'], { timeout: soon }).process;
    // The timer fires before the loop looks at anything else.
    const end = performance.now() + 5;
    while (performance.now() < end);
    expect(await story(child)).toEqual(['exit null SIGKILL', 'spawned rejects ERR_CLOISTER_NOT_STARTED', 'exited timeout', 'close null SIGKILL']);
  });

  test('the message of the rejection', async () => {
    const child = startProbe(['sleep'], { timeout: soon }).process;
    const end = performance.now() + 5;
    while (performance.now() < end);
    const error: Error = await child.spawned.then(
      () => Promise.reject(),
      (e) => e,
    );
    expect(error.message).toMatchInlineSnapshot(`"it was ended before its program began (timeout)"`);
  });

  test('of a run is a result', async () => {
    const result = await run([['write', 1, 10], 'sleep'], { timeout: 500 });
    expect(result).toMatchObject({ exitCode: null, signal: 'SIGKILL', reason: 'timeout', stdoutTruncated: false });
    expect(result.stdout.slice(0, 10)).toBe('xxxxxxxxxx');
    expect(result.durationMs).toBeGreaterThanOrEqual(499);
  });

  test('that is not reached keeps nothing', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const before = timers();
    expect(await run([['exit', 3]], { timeout: never })).toMatchObject({ exitCode: 3, reason: 'exit' });
    expect(timers()).toBeLessThanOrEqual(before);
  });
});

describe('killSignal and killGrace', () => {
  test('a program with a handler ends itself', async () => {
    const abort = new AbortController();
    const { process: child, lines } = startProbe([['trap', 'TERM', 'cleaned up']], {
      signal: abort.signal,
      killSignal: 'SIGTERM',
      killGrace: never,
    });
    await lines.until('ready');
    abort.abort();
    await lines.until('cleaned up');
    expect(await child.exited).toMatchObject({ exitCode: 0, signal: null, reason: 'aborted' });
  });

  test('one without a handler is ended by it', async () => {
    const abort = new AbortController();
    const { process: child, lines } = startProbe(['sleep'], { signal: abort.signal, killSignal: 'SIGINT', killGrace: never });
    await lines.until('ready');
    abort.abort();
    expect(await child.exited).toMatchObject({ exitCode: null, signal: 'SIGINT', reason: 'aborted' });
  });

  test.each([{}, { init: true }])('one that ignores it gets SIGKILL (%o)', async (options) => {
    const abort = new AbortController();
    const { process: child, lines } = startProbe([['ignore', 'TERM']], {
      signal: abort.signal,
      killSignal: 'SIGTERM',
      killGrace: soon,
      ...options,
    });
    await lines.until('ready');
    abort.abort();
    expect(await child.exited).toMatchObject({ exitCode: null, signal: 'SIGKILL', reason: 'aborted' });
  });

  test('before exec it is as if it had been delivered', async () => {
    const child = startProbe(['sleep'], { signal: AbortSignal.abort(), killSignal: 'SIGTERM' }).process;
    expect(await child.exited).toMatchObject({ exitCode: null, signal: 'SIGTERM', reason: 'aborted' });
    await expect(child.spawned).rejects.toMatchObject({ code: 'ERR_CLOISTER_NOT_STARTED' });
  });
});

describe('abort', () => {
  test('already aborted', async () => {
    const child = startProbe(['sleep'], { signal: AbortSignal.abort() }).process;
    expect(await story(child)).toEqual(['exit null SIGKILL', 'spawned rejects ERR_CLOISTER_NOT_STARTED', 'exited aborted', 'close null SIGKILL']);
  });

  test.each([{}, { init: true }, { tty: true }])('later (%o)', async (options: SpawnOptions) => {
    const abort = new AbortController();
    const child = spawnIsolated(insideFixture('probe'), ['sleep'], withFixtures({ ...options, signal: abort.signal }));
    child.stdout?.once('data', () => abort.abort());
    expect(await story(child)).toEqual(['spawn', 'spawned', 'exit null SIGKILL', 'exited aborted', 'close null SIGKILL']);
  });

  test('of a run is a result', async () => {
    expect(await run(['sleep'], { signal: AbortSignal.abort() })).toMatchObject({ reason: 'aborted', stdout: '', exitCode: null });
  });

  test('after the end changes nothing, and the listener is gone', async () => {
    const abort = new AbortController();
    const { signal } = abort;
    const [added, removed] = [vi.spyOn(signal, 'addEventListener'), vi.spyOn(signal, 'removeEventListener')];
    const result = await run([['exit', 0]], { signal });
    abort.abort();
    expect(result.reason).toBe('exit');
    // By the same function, else nothing is removed.
    expect(removed.mock.calls.map(([, listener]) => listener)).toEqual(added.mock.calls.map(([, listener]) => listener));
    expect(added).toHaveBeenCalledTimes(1);
  });
});

describe('outputLimit', () => {
  const limit = 10_000;

  test('a run gets exactly so many bytes', async () => {
    const result = await run([['write', 1, '1M'], 'sleep'], { outputLimit: limit });
    expect(result).toMatchObject({ reason: 'output-limit', signal: 'SIGKILL', stdoutTruncated: true, stderrTruncated: false });
    expect([result.stdout.length, result.stderr.length]).toEqual([limit, 0]);
  });

  test.each([
    [limit - 1, 'exit'],
    [limit, 'output-limit'],
    [limit + 1, 'output-limit'],
  ])('a program that has ended by itself after %i of 10,000 bytes', async (size, reason) => {
    for (let time = 0; time < 20; time++) {
      const result = await run([['write', 1, size]], { outputLimit: limit });
      expect([result.reason, result.stdout.length, result.stdoutTruncated]).toEqual([reason, Math.min(size, limit), size > limit]);
    }
  });

  test('both streams are counted together', async () => {
    const result = await run([['write', 1, 6_000], ['write', 2, 6_000], 'sleep'], { outputLimit: limit });
    expect(result.reason).toBe('output-limit');
    expect(result.stdout.length + result.stderr.length).toBe(limit);
  });

  test('a spawn gets exactly so many bytes', async () => {
    const child = spawnIsolated(insideFixture('probe'), toArguments([['write', 1, '1M'], 'sleep']), withFixtures({ outputLimit: limit }));
    let size = 0;
    child.stdout.on('data', (chunk: Buffer) => (size += chunk.length));
    expect(await story(child)).toEqual(['spawn', 'spawned', 'exit null SIGKILL', 'exited output-limit', 'close null SIGKILL']);
    expect(size).toBe(limit);
  });

  test('only what is piped counts', async () => {
    const result = await run(
      [
        ['write', 2, '1M'],
        ['write', 1, 10],
      ],
      { outputLimit: limit, stdio: ['pipe', 'pipe', 'ignore'] },
    );
    expect([result.reason, result.stdout.slice(-10), result.stdoutTruncated]).toEqual(['exit', 'xxxxxxxxxx', false]);
  });

  test('of a terminal', async () => {
    const result = await run([['write', 1, '1M'], 'sleep'], { outputLimit: limit, tty: true });
    expect([result.reason, result.stdout.length, result.stdoutTruncated]).toEqual(['output-limit', limit, true]);
  });

  test('a run has one of 64M without being asked', async () => {
    const result = await run([['write', 1, '65M']], {});
    expect([result.reason, result.stdout.length, result.stdoutTruncated]).toEqual(['output-limit', 64 * 2 ** 20, true]);
  });

  test('nothing is piped', () => {
    expect(() => spawnIsolated('/bin/true', [], { stdio: 'ignore', outputLimit: limit })).toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'outputLimit' takes nothing when neither stdout nor stderr is piped: there is nothing to count; got 10000]`,
    );
  });
});

describe('the first that acted is the reason', () => {
  test('abort, then a timeout while it still ends', async () => {
    const abort = new AbortController();
    const { process: child, lines } = startProbe([['ignore', 'TERM']], {
      signal: abort.signal,
      timeout: 600,
      killSignal: 'SIGTERM',
      killGrace: 900,
    });
    await lines.until('ready');
    abort.abort();
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL', reason: 'aborted' });
  });

  test('the limit of output, then abort', async () => {
    const abort = new AbortController();
    const child = spawnIsolated(insideFixture('probe'), toArguments([['write', 1, '1M'], 'sleep']), withFixtures({ outputLimit: 100, signal: abort.signal }));
    child.stdout.once('data', () => abort.abort());
    expect((await child.exited).reason).toBe('output-limit');
  });

  test('kill, then abort', async () => {
    const abort = new AbortController();
    const child = startProbe(['sleep'], { signal: abort.signal }).process;
    child.once('exit', () => abort.abort());
    child.kill('SIGKILL');
    expect((await child.exited).reason).toBe('signal');
  });
});
