// The plan of a spawn as the limit program takes it: the encoded bytes in a file, and the descriptors that it borrows.

import { spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { prepare } from '../dist/spawn/prepare.js';
import { settingsOf } from '../dist/spawn/settings.js';
import { openStreams } from '../dist/spawn/streams.js';
import { build } from './build.mjs';

/** `edit` may change the steps (leave some out) before they are encoded. */
export async function preparePlan(program, options, edit = () => {}) {
  const settings = settingsOf(program, [], { ...options, stdio: 'ignore' });
  // Whole: without what may have been made ahead, which can be used once only.
  const prepared = await prepare(
    settings,
    openStreams(settings, () => (chunk) => chunk),
    true,
  );
  edit(prepared.plan);
  return prepared;
}

let files = 0;

/** Starts the limit program with this plan. Each `once()` is one run, in microseconds. */
export function startLimit(prepared, mode = 'vfork', binary = 'limit') {
  const file = join(build, `plan-${process.pid}-${files++}`);
  writeFileSync(file, prepared.plan.encode());
  const slots = [...prepared.plan.slots()];
  // At the same numbers: the descriptor of the user namespace is a number among the bytes of mount_setattr's argument.
  const stdio = Array.from({ length: Math.max(2, ...slots) + 1 }, (_, fd) => (fd < 2 ? 'pipe' : fd === 2 ? 'inherit' : slots.includes(fd) ? fd : 'ignore'));
  const child = spawn(join(build, binary), [file, slots.join(','), mode], { stdio });
  const waiting = [];
  let text = '';
  let ended;
  child.stdin.on('error', () => {});
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    text += chunk;
    if (binary !== 'limit') return;
    const lines = text.split('\n');
    text = lines.pop();
    for (const line of lines) waiting.shift()?.resolve(Number(line));
  });
  const closed = new Promise((resolve) => {
    child.on('close', (code) => {
      ended = new Error(`the limit program ended with ${code}`);
      for (const { reject } of waiting.splice(0)) reject(ended);
      resolve(text);
    });
  });
  return {
    once: () =>
      new Promise((resolve, reject) => {
        if (ended) return reject(ended);
        waiting.push({ resolve, reject });
        child.stdin.write('.');
      }),
    /** That many runs, answered by what the traced program prints at its end. */
    trace: (count) => {
      child.stdin.end('.'.repeat(count));
      return closed;
    },
    close: async () => {
      child.stdin.end();
      await closed;
      rmSync(file, { force: true });
      prepared.discard();
    },
  };
}
