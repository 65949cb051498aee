// Row 11: one stats() and what the same files cost one by one. And what watch() holds of the event loop.

import { readdirSync, readlinkSync, statSync } from 'node:fs';
import { readFile, stat as stats } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { Cgroup } from 'cloister';
import { contest } from './contest.mjs';

const samples = 1000;

export async function counters(report) {
  let group;
  try {
    group = await Cgroup.create(undefined, { memory: '64M', cpu: 1, pids: 64 });
  } catch (error) {
    report.missing(11, 'stats', error.message.split('\n')[0]);
    return;
  }
  try {
    await group.stats();
    // Directories are looked at, too, for their count of links: no file to be read.
    const files = openFiles().filter((path) => path.includes(group.name) && statSync(path).isFile());
    const timed = (work) => async () => {
      const begin = performance.now();
      await work();
      return (performance.now() - begin) * 1e3;
    };
    const times = await contest(
      { stats: timed(() => group.stats()), readFile: timed(() => Promise.all(files.map((path) => readFile(path, 'utf8')))) },
      40,
      'in a row',
    );
    report.compare(11, `stats, ${files.length} files`, times.stats, 'fs.promises.readFile', times.readFile, { goal: 0.25, condition: 'in a row' });
    const before = openFiles().length;
    const watch = group.watch({ intervalMs: 10 })[Symbol.asyncIterator]();
    // The least that anything on the pool costs a loop that has slept: both begin cold each time.
    const stat = { next: () => pause(10).then(() => stats('/')), return: () => undefined };
    for (const [what, source] of [
      ['watch at 10 ms', watch],
      ['fs.promises.stat each 10 ms', stat],
    ]) {
      const held = [];
      await source.next();
      for (let last = performance.eventLoopUtilization(); held.length < samples; ) {
        await source.next();
        const now = performance.eventLoopUtilization();
        held.push(performance.eventLoopUtilization(now, last).active);
        last = now;
      }
      await source.return();
      held.sort((a, b) => a - b);
      const [median, p99, most] = [0.5, 0.99, 1].map((share) => held[Math.min(samples - 1, samples * share)].toFixed(3));
      const beyond = held.filter((time) => time > 1).length;
      report.note(`${what}, ${samples} samples: each held the event loop for ${median} ms (median), ${p99} (p99), ${most} at most; ${beyond} beyond 1 ms`);
    }
    report.note(`${openFiles().length - before} descriptors more than before`);
  } finally {
    await group[Symbol.asyncDispose]();
  }
}

function openFiles() {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return [];
    }
  });
}
