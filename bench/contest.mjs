// Contestants side by side: A B C A B C …, after a warm-up. Only ratios within one contest mean something.

import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { spawnIsolated } from 'cloister';

/**
 * How a contest goes. `inARow` runs follow each other without a pause and the first of them is not counted, so that nothing that was
 * made ahead while nothing ran helps; with 1, every run comes after a pause, in which that may have happened.
 */
export const conditions = {
  'in a row': { inARow: 5, pause: 15 },
  'after a pause': { inARow: 1, pause: 15 },
};

/** `contestants`: name → a function that does one run and resolves with its microseconds. Result: name → Sample. */
export async function contest(contestants, rounds, condition) {
  const { inARow, pause } = conditions[condition];
  const times = Object.fromEntries(Object.keys(contestants).map((name) => [name, []]));
  const count = condition === 'in a row' ? rounds : rounds * 4;
  for (let round = -2; round < count; round++) {
    for (const [name, once] of Object.entries(contestants)) {
      // What a run leaves behind for the kernel, and what is made ahead for the next, falls on nobody.
      await sleep(pause);
      for (let run = 0; run < inARow; run++) {
        const time = await once();
        if (round >= 0 && (run > 0 || inARow === 1)) times[name].push(time);
      }
    }
  }
  return Object.fromEntries(Object.entries(times).map(([name, values]) => [name, sample(values)]));
}

export function sample(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return { count: sorted.length, median: at(0.5), p99: at(0.99), least: sorted[0] };
}

/** From the call to 'exit' (with pipes: to 'close', when all streams have ended). `calls` takes how long the call itself was. */
export function timeSpawn(start, calls, event = 'exit') {
  return () =>
    new Promise((resolve, reject) => {
      const begin = process.hrtime.bigint();
      const child = start();
      calls?.push(Number(process.hrtime.bigint() - begin) / 1e3);
      child.once('error', reject);
      child.once(event, (code, signal) => {
        const took = Number(process.hrtime.bigint() - begin) / 1e3;
        if (code === 0) resolve(took);
        else reject(new Error(`${child.spawnfile} ended with ${code ?? signal}`));
      });
      if (event !== 'close') return;
      child.stdin.end();
      child.stdout.resume();
      child.stderr.resume();
    });
}

export const full = (program, options, calls, event) => timeSpawn(() => spawnIsolated(program, [], options), calls, event);
export const plain = (program, options, calls, event) => timeSpawn(() => spawn(program, [], options), calls, event);
