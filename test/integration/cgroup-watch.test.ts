// Samples over time.

import { createHook } from 'node:async_hooks';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { census, leaks, settled } from '../helpers/census.js';
import { makeGroup, startIn } from '../helpers/cgroups.js';
import { repository } from '../helpers/fixtures.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { temporary } from './trees.js';

describeNeeding(['v2-group'])('watch', () => {
  test('1,000 samples, 10 ms apart, leave no descriptor', { timeout: 120_000 }, async () => {
    const group = await makeGroup();
    await group.stats();
    const before = census(['descriptors', 'threads', 'handles']);
    const times: number[] = [];
    for await (const { at, populated, freezer } of group.watch({ intervalMs: 10 })) {
      expect({ populated, freezer }).toEqual({ populated: false, freezer: 'thawed' });
      times.push(at);
      if (times.length === 1_000) break;
    }
    await settled(() => leaks(before, census(['descriptors', 'threads', 'handles'])), { what: 'what watched' });
    // Each is later than the one before it, and none is made up for: on average at least so far apart.
    expect(times.every((at, index) => index === 0 || at > (times[index - 1] ?? 0))).toBe(true);
    expect((times.at(-1) ?? 0) - (times[0] ?? 0)).toBeGreaterThan(999 * 10 - 20);
  });

  test('a sample sees what has changed', async () => {
    const group = await makeGroup();
    const { stdin } = await startIn(group, ['cat']);
    const seen: boolean[] = [];
    for await (const { populated } of group.watch({ intervalMs: 5 })) {
      if (seen.at(-1) !== populated) seen.push(populated);
      if (populated) stdin.end();
      else break;
    }
    expect(seen).toEqual([true, false]);
  });

  test('ends by its signal, at once', async () => {
    const group = await makeGroup();
    const abort = new AbortController();
    let samples = 0;
    for await (const _ of group.watch({ intervalMs: 1_000_000, signal: abort.signal })) {
      samples++;
      setImmediate(() => abort.abort());
    }
    expect(samples).toBe(1);
    for await (const _ of group.watch({ signal: AbortSignal.abort() })) samples++;
    expect(samples).toBe(1);
  });

  test('ends with the group', async () => {
    const group = await makeGroup();
    let samples = 0;
    for await (const _ of group.watch({ intervalMs: 5 })) {
      samples++;
      await group.delete();
    }
    expect(samples).toBe(1);
  });

  test('ends when the group is deleted between two samples', async () => {
    const group = await makeGroup();
    const samples = group.watch({ intervalMs: 3_600_000 });
    await samples.next();
    const next = samples.next();
    await group.delete();
    expect(await next).toEqual({ done: true, value: undefined });
  });

  test('several at a time', async () => {
    const group = await makeGroup();
    const take = async (count: number) => {
      let taken = 0;
      for await (const _ of group.watch({ intervalMs: 1 })) if (++taken === count) break;
      return taken;
    };
    expect(await Promise.all([take(5), take(10), take(20)])).toEqual([5, 10, 20]);
  });

  test('wrong options', async () => {
    const group = await makeGroup();
    const wrong = async (options: object) => {
      try {
        for await (const _ of group.watch(options)) return 'accepted';
        return 'ended';
      } catch (error) {
        return error instanceof TypeError ? error.message : String(error);
      }
    };
    expect([
      await wrong({ intervalMs: -1 }),
      await wrong({ intervalMs: Number.NaN }),
      await wrong({ intervalMs: '10' }),
      await wrong({ signal: {} }),
      await wrong({ interval: 10 }),
      await wrong(null as never),
    ]).toMatchInlineSnapshot(`
      [
        "option 'intervalMs' takes milliseconds: more than 0, at most 2147483647; got -1",
        "option 'intervalMs' takes milliseconds: more than 0, at most 2147483647; got NaN",
        "option 'intervalMs' takes milliseconds: more than 0, at most 2147483647; got "10"",
        "option 'signal' takes an AbortSignal; got an instance of Object",
        "option 'interval' takes nothing: there is no such option; got 10",
        "option 'options' takes an object; got null",
      ]
    `);
  });
});

/** The names of the system calls that the main thread makes while this snippet takes its samples. */
function mainThreadCalls(samples: number): string[] {
  const trace = join(temporary(), 'trace');
  const script = `
    import { closeSync, openSync } from 'node:fs';
    import { Cgroup } from 'cloister';
    const group = await Cgroup.create();
    for (let i = 0; i < 5; i++) await group.stats();
    const mark = () => { try { openSync('/cloister-mark'); } catch {} };
    mark();
    for (let i = 0; i < ${samples}; i++) await group.stats();
    mark();
    await group.delete();
  `;
  execFileSync('strace', ['-f', '-o', trace, process.execPath, '--input-type=module', '--eval', script], { cwd: repository });
  const lines = readFileSync(trace, 'utf8').split('\n');
  const marks = lines.flatMap((line, index) => (line.includes('/cloister-mark') ? [index] : []));
  const main = lines[0]?.split(' ')[0];
  return lines.slice((marks[0] ?? 0) + 1, marks[1]).flatMap((line) => {
    const [, thread, call] = /^(\d+) +(\w+)\(/.exec(line) ?? [];
    return thread === main && call !== undefined ? [call] : [];
  });
}

describeNeeding(['v2-group', 'program:strace'])('a sample holds the event loop for no file', () => {
  test('the main thread opens, reads and closes none', () => {
    const calls = mainThreadCalls(50);
    expect(calls.filter((call) => /^(open|openat|openat2|pread64|preadv|readv|close|stat|statx|newfstatat|getdents64|readlink)$/.test(call))).toEqual([]);
    // What is left is the loop's own: it waits, and is woken by the thread that has read. (It asks for the time where the clock has no vDSO.)
    expect(new Set(calls)).toEqual(
      new Set(
        calls.filter((call) =>
          /^(epoll_\w+|read|write|futex|madvise|mprotect|m?munmap|mmap|brk|sched_yield|getpid|clock_gettime|timerfd_\w+|io_uring_enter)$/.test(call),
        ),
      ),
    );
    // One wake-up for each sample, and not one for each file.
    expect(calls.filter((call) => call === 'read').length).toBeLessThanOrEqual(2 * 50 + 10);
  });

  testNeeding(['controller:memory'])('one visit to the pool of threads, whatever the number of files', async () => {
    const group = await makeGroup();
    await group.stats();
    let visits = 0;
    const hook = createHook({
      init: (_id, type) => {
        if (!['PROMISE', 'Immediate', 'TickObject', 'Timeout'].includes(type)) visits++;
      },
    }).enable();
    await group.stats();
    hook.disable();
    expect(visits).toBeLessThanOrEqual(1);
  });
});
