// Rows 1 and 3, in a process of its own with so many GiB of live buffers: heap.mjs GIB ROUNDS OPTIONS PROGRAM. Writes JSON.

import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { contest, full, plain, sample } from './contest.mjs';

const [gib, rounds, optionsText, program] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4], process.argv[5]];
const options = { ...JSON.parse(optionsText), stdio: 'ignore' };
const live = [];
// Filled, as untouched pages cost a fork nothing.
for (let i = 0; i < gib * 16; i++) live.push(Buffer.alloc(64 * 2 ** 20, i + 1));

const result = { gib, residentMiB: Math.round(process.memoryUsage.rss() / 2 ** 20), spawns: {}, calls: {}, held: {} };
const calls = { full: [], plain: [] };
const pair = { full: full(program, options, calls.full), plain: plain(program, { stdio: 'ignore' }, calls.plain) };
for (const condition of ['in a row', 'after a pause']) result.spawns[condition] = await contest(pair, rounds, condition);
for (const name of ['full', 'plain']) result.calls[name] = sample(calls[name].slice(20));

if (gib === 0) {
  const piped = { ...JSON.parse(optionsText) };
  result.spawns.pipes = await contest({ full: full(program, piped, undefined, 'close'), plain: plain(program, {}, undefined, 'close') }, rounds, 'in a row');
  result.spawns['/bin/true'] = await contest({ full: full('/bin/true', options), plain: plain('/bin/true', { stdio: 'ignore' }) }, rounds, 'in a row');
  for (const name of ['full', 'plain']) result.held[name] = { loop: [], cpu: [] };
  for (let round = -1; round < rounds; round++) {
    for (const [name, once] of Object.entries(pair)) {
      await sleep(15);
      const loop = performance.eventLoopUtilization();
      const cpu = mainThreadMicroseconds();
      for (let run = 0; run < 10; run++) await once();
      if (round < 0) continue;
      result.held[name].loop.push((performance.eventLoopUtilization(loop).active * 1e3) / 10);
      result.held[name].cpu.push((mainThreadMicroseconds() - cpu) / 10);
    }
  }
  for (const name of ['full', 'plain']) for (const kind of ['loop', 'cpu']) result.held[name][kind] = sample(result.held[name][kind]);
}

function mainThreadMicroseconds() {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ')[0]) / 1e3;
}

process.stdout.write(JSON.stringify(result));
// Still alive until here.
process.exitCode = live.length === gib * 16 ? 0 : 1;
