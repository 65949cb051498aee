// Row 13: the system calls of one spawn. The plan tells its own; with strace, what really happened is counted beside it.

import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { bench, build } from './build.mjs';
import { preparePlan } from './plan.mjs';

const callsOf = (step) => (step.kind === 'drop_bounding' ? Number(step.args[1]) + 1 - bitCount(BigInt(step.args[0])) : 1);
const bitCount = (mask) => [...mask.toString(2)].filter((bit) => bit === '1').length;

export async function countPlan(program, options) {
  const prepared = await preparePlan(program, options);
  const { parent, child } = prepared.plan.steps;
  const sum = (steps) => steps.reduce((total, step) => total + callsOf(step), 0);
  const byLabel = new Map();
  for (const [side, steps] of Object.entries({ parent, child })) {
    for (const step of steps) byLabel.set(`${side}: ${step.label}`, (byLabel.get(`${side}: ${step.label}`) ?? 0) + callsOf(step));
  }
  const result = { parent: sum(parent), child: sum(child), byLabel: Object.fromEntries(byLabel) };
  prepared.discard();
  return result;
}

/** Calls per spawn, as strace sees them: of the main thread, of other threads, of children until exec; or why there is none. */
export function countByStrace(program, options) {
  const few = 2;
  const many = 12;
  const runs = { full: [], plain: [] };
  try {
    for (const kind of ['full', 'plain']) for (const count of [few, many]) runs[kind].push(traceOnce(kind, count, program, options));
  } catch (error) {
    return { missing: error.code === 'ENOENT' ? 'strace is not installed' : error.message.split('\n')[0] };
  }
  const result = {};
  for (const [kind, [a, b]] of Object.entries(runs)) {
    const per = (role) => {
      const counts = {};
      for (const [name, count] of Object.entries(b[role])) {
        const each = (count - (a[role][name] ?? 0)) / (many - few);
        if (each >= 0.05) counts[name] = Math.round(each * 10) / 10;
      }
      return counts;
    };
    result[kind] = { main: per('main'), threads: per('threads'), children: per('children') };
  }
  return result;
}

function traceOnce(kind, count, program, options) {
  const file = join(build, `strace-${process.pid}`);
  const script = `
    import { spawn } from 'node:child_process';
    import { spawnIsolated } from 'cloister';
    const options = ${JSON.stringify({ ...options, stdio: 'ignore' })};
    for (let i = 0; i < ${count}; i++) {
      const child = ${kind === 'full' ? `spawnIsolated(${JSON.stringify(program)}, [], options)` : `spawn(${JSON.stringify(program)}, [], { stdio: 'ignore' })`};
      await new Promise((resolve, reject) => child.once('error', reject).once('exit', resolve));
    }
    process.exit();`;
  try {
    execFileSync('strace', ['-f', '-qq', '-o', file, process.execPath, '--input-type=module', '-e', script], {
      cwd: join(bench, '..'),
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    return parse(readFileSync(file, 'utf8'));
  } finally {
    rmSync(file, { force: true });
  }
}

/** Which calls the main thread, other threads and the children (until exec has succeeded) made. */
function parse(text) {
  const counts = { main: {}, threads: {}, children: {} };
  const lines = text.split('\n');
  const main = /^(\d+)/.exec(text)?.[1];
  const threads = new Set();
  for (const line of lines) {
    const clone = /^(\d+) +(?:<\.\.\. )?clone3?\b.*?= (\d+)$/.exec(line);
    if (clone && /CLONE_THREAD/.test(line)) threads.add(clone[2]);
  }
  // An unfinished clone tells its flags in the first half.
  const pending = new Map();
  for (const line of lines) {
    const pid = /^(\d+)/.exec(line)?.[1];
    if (/ clone3?\(.*<unfinished/.test(line)) pending.set(pid, /CLONE_THREAD/.test(line));
    const resumed = /<\.\.\. clone3? resumed>.*= (\d+)/.exec(line);
    if (resumed && pending.get(pid)) threads.add(resumed[1]);
  }
  const over = new Set();
  for (const line of lines) {
    const [, pid, rest] = /^(\d+) +(.*)$/.exec(line) ?? [];
    if (!pid || over.has(pid)) continue;
    const role = pid === main ? 'main' : threads.has(pid) ? 'threads' : 'children';
    if (role === 'children' && /^(?:<\.\.\. )?execve(?:at)?(?:\(| resumed>).*= 0$/.test(rest)) over.add(pid);
    const name = /^(\w+)\(/.exec(rest)?.[1];
    if (name) counts[role][name] = (counts[role][name] ?? 0) + 1;
  }
  return counts;
}
