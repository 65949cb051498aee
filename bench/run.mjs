// npm run bench: see README.md. Options: --quick, --rows 1,2,parts, --gib 0,1,4.

import { execFileSync, spawn } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runIsolated } from 'cloister';
import { bench, build, caller, compileAll, program, results } from './build.mjs';
import { counters } from './cgroup.mjs';
import { chart } from './chart.mjs';
import { contest, full } from './contest.mjs';
import { layers } from './layers.mjs';
import { networks } from './network.mjs';
import { notifyRates } from './notify.mjs';
import { partsByOption, partsByStep } from './parts.mjs';
import { openPeers } from './peers.mjs';
import { preparePlan, startLimit } from './plan.mjs';
import { Report } from './report.mjs';
import { countByStrace, countPlan } from './syscalls.mjs';

const { values: flags } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    rows: { type: 'string', default: '1,2,3,4,8,9,10,11,12,13,parts,notify' },
    gib: { type: 'string', default: '0,1,4' },
  },
});
const rows = new Set(flags.rows.split(','));
const wants = (...names) => names.some((name) => rows.has(name));
const rounds = flags.quick ? 5 : 60;

const children = new Set();
const track = (child) => {
  children.add(child);
  child.once('close', () => children.delete(child));
  return child;
};
function cleanUp() {
  for (const child of children) child.kill('SIGKILL');
  // The limit programs and servers end with the pipes that we hold; what they were given lies in bench/build/.
  for (const name of readdirSync(build)) if (name.includes(`-${process.pid}`)) rmSync(join(build, name), { recursive: true, force: true });
}
process.on('exit', cleanUp);
for (const [signal, number] of [
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
])
  process.on(signal, () => process.exit(128 + number));

compileAll();
const report = new Report({
  date: new Date().toISOString(),
  quick: flags.quick,
  kernel: release(),
  node: process.version,
  processor: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}`,
  user: process.getuid() === 0 ? 'root' : `uid ${process.getuid()}`,
  commit: commit(),
});
const say = (text) => process.stderr.write(`bench: ${text} …\n`);
const options = await withLimits(await optionsToSee());

if (wants('1', '3')) await heaps();
if (wants('2', '4')) await limitAndPeers();
if (wants('8', '9', '10')) {
  say('rows 8 to 10');
  await layers(report, { program, rounds, rows, quick: flags.quick });
}
if (wants('11')) await counters(report);
if (wants('12')) await networks(report, program, options, rounds);
if (wants('13')) await systemCalls();
if (wants('parts')) await parts();
if (wants('notify')) await notify();

process.stdout.write(report.table());
writeFileSync(join(results, 'latest.json'), `${JSON.stringify(report.json(), null, 2)}\n`);
writeFileSync(join(results, 'latest.svg'), chart(report.json()));
process.stdout.write('\nbench/results/latest.json, bench/results/latest.svg\n');
process.exit();

/** The program must be seen inside: it is, unless the repository lies where the default root is empty (/root, /home, /tmp). */
async function optionsToSee() {
  const bound = { mounts: [{ type: 'bind', source: build, target: build, readonly: true }] };
  let failure;
  for (const candidate of [{}, bound]) {
    try {
      const { exitCode } = await runIsolated(program, [], candidate);
      if (exitCode === 0) {
        if (candidate === bound) report.note('the repository is hidden in the default root, so bench/build is bound into it: "full" has one mount more');
        return candidate;
      }
    } catch (error) {
      failure = error;
    }
  }
  throw failure ?? new Error('the program cannot be run in the default root');
}

async function heaps() {
  const available = Number(/MemAvailable: +(\d+)/.exec(readFileSync('/proc/meminfo', 'latin1'))[1]) / 2 ** 20;
  const goals = { 0: 0.6, 1: 0.15, 4: 0.07 };
  for (const gib of flags.gib.split(',').map(Number)) {
    const heap = gib === 0 ? 'idle heap' : `${gib} GiB heap`;
    if (gib > 0 && !wants('1')) continue;
    if (available < gib * 1.5) {
      report.missing(1, heap, `${available.toFixed(1)} GiB of memory are available, ${gib * 1.5} are needed`);
      continue;
    }
    say(`rows 1 and 3: ${heap}`);
    const count = gib === 0 ? rounds : Math.ceil(rounds / (gib > 1 ? 4 : 2));
    const { spawns, calls, held } = JSON.parse(
      await output(process.execPath, [join(bench, 'heap.mjs'), String(gib), String(count), JSON.stringify(options), program]),
    );
    if (wants('1')) {
      const goal = goals[gib];
      for (const condition of ['in a row', 'after a pause'])
        report.compare(1, heap, spawns[condition].full, 'child_process', spawns[condition].plain, { goal, condition });
      if (spawns.pipes) report.compare(1, `${heap}, pipes to 'close'`, spawns.pipes.full, 'child_process', spawns.pipes.plain, { goal, condition: 'in a row' });
      if (spawns['/bin/true'])
        report.compare(1, `${heap}, /bin/true`, spawns['/bin/true'].full, 'child_process', spawns['/bin/true'].plain, { goal, condition: 'in a row' });
    }
    if (wants('3') && gib === 0) {
      report.compare(3, 'the call holds the loop', calls.full, 'child_process', calls.plain, { goal: 0.02, use: 'p99', condition: 'p99' });
      report.compare(3, 'all callbacks hold the loop', held.full.loop, 'child_process', held.plain.loop, { condition: 'in a row' });
      report.compare(3, 'processor, main thread', held.full.cpu, 'child_process', held.plain.cpu, { condition: 'in a row' });
    }
  }
}

async function limitAndPeers() {
  say(`rows ${['2', '4'].filter((row) => rows.has(row)).join(' and ')}`);
  const contestants = { full: full(program, { ...options, stdio: 'ignore' }) };
  const limits = {};
  if (wants('2')) {
    for (const mode of ['vfork', 'vm']) {
      const name = `limit (${mode})`;
      const limit = startLimit(await preparePlan(program, options), mode);
      try {
        await limit.once();
        limits[name] = limit;
        contestants[name] = limit.once;
      } catch (error) {
        report.missing(2, name, error.message);
      }
    }
  }
  const { peers, missing } = wants('4') ? await openPeers(track, options.mounts !== undefined) : { peers: {}, missing: {} };
  for (const [name, peer] of Object.entries(peers)) contestants[name] = peer.once;
  const goals = { bwrap: 0.3, crun: 0.3, runc: 0.08 };
  try {
    for (const condition of ['in a row', 'after a pause']) {
      // A second condition for all would take long; what the peers do does not depend on it much.
      const times = await contest(contestants, condition === 'in a row' ? rounds : Math.ceil(rounds / 4), condition);
      const best = Object.keys(limits).sort((a, b) => times[a].median - times[b].median)[0];
      for (const name of Object.keys(limits)) {
        report.compare(2, 'full', times.full, name, times[name], { goal: name === best ? 1.25 : undefined, condition });
      }
      for (const name of Object.keys(peers)) report.compare(4, 'full', times.full, name, times[name], { goal: goals[name], condition });
    }
  } finally {
    for (const peer of [...Object.values(limits), ...Object.values(peers)]) await peer.close();
  }
  for (const [name, reason] of Object.entries(missing)) report.missing(4, name, reason);
}

async function systemCalls() {
  say('row 13');
  const { moments } = await partsByStep(program, options, 5);
  report.syscalls({
    plan: await countPlan(program, options),
    ran: { parent: moments['calls of the parent'].median, child: moments['calls of the child'].median },
    strace: countByStrace(program, options),
  });
}

async function notify() {
  say('notify');
  for (const [syscall, { perSecond, cpuUs, loopDelayMs }] of Object.entries(await notifyRates(caller, options)))
    report.note(
      `seccomp.notify: ${perSecond.toLocaleString('en')} ${syscall} a second (goal: 5,000), ${cpuUs.toFixed(1)} µs of processor time each, the loop late by ${loopDelayMs.toFixed(1)} ms (99th percentile)`,
    );
}

async function parts() {
  say('parts');
  report.parts(await partsByOption(program, options, Math.ceil(rounds / 2)), await partsByStep(program, options, flags.quick ? 100 : 1000));
}

/** The usual three, where groups can be made. */
async function withLimits(options) {
  const limited = { ...options, cgroup: { memory: '64M', cpu: 1, pids: 64 } };
  try {
    await runIsolated(program, [], limited);
    return limited;
  } catch (error) {
    report.note(`"full" is without cgroup limits: ${error.message.split('\n')[0]}`);
    return options;
  }
}

function output(command, args) {
  return new Promise((resolve, reject) => {
    const child = track(spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] }));
    let text = '';
    child.stdout.on('data', (chunk) => {
      text += chunk;
    });
    child.once('error', reject);
    child.once('close', (code, signal) => (code === 0 ? resolve(text) : reject(new Error(`${args[0]} ended with ${code ?? signal}`))));
  });
}

function commit() {
  try {
    return execFileSync('git', ['-C', bench, 'describe', '--always', '--dirty'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return 'unknown';
  }
}
