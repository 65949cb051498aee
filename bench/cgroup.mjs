// Row 11: one stats() and what the same files cost one by one. And what watch() holds of the event loop.

import { readdirSync, readlinkSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { Cgroup } from 'cloister';
import { contest } from './contest.mjs';

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
    const held = [];
    const before = openFiles().length;
    let samples = 0;
    let last = performance.eventLoopUtilization();
    for await (const _ of group.watch({ intervalMs: 10 })) {
      const now = performance.eventLoopUtilization();
      held.push(performance.eventLoopUtilization(now, last).active);
      last = now;
      if (++samples === 1000) break;
    }
    held.sort((a, b) => a - b);
    report.note(
      `watch at 10 ms, ${samples} samples: each held the event loop for ${held[500].toFixed(3)} ms (median), ${held[999].toFixed(3)} at most; ${openFiles().length - before} descriptors more than before`,
    );
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
