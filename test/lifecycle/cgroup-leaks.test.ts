// 500 groups, in all the ways that they can come and go.
import { expect } from 'vitest';
import { census, leaks } from '../helpers/census.js';
import { groupDirectories } from '../helpers/cgroups.js';
import { fixturesDirectory } from '../helpers/fixtures.js';
import { inChild } from '../helpers/harness.js';
import { testNeeding } from '../helpers/lane.js';
import { Marker } from './story.js';

const total = 500;
const warmUp = 100;
const atOnce = 8;

/** In a process of its own, which looks at itself before and after. */
const script = `
  import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
  import { Cgroup, spawnIsolated } from 'cloister';

  const fixtures = { type: 'bind', source: ${JSON.stringify(fixturesDirectory())}, target: '/probe', readonly: true };
  const base = { mounts: [fixtures], env: { CLOISTER_MARKER: process.env.CLOISTER_MARKER }, stdio: 'ignore' };
  const limits = { memory: { max: '32M', swapMax: 0 }, pids: 20 };
  const start = (args, options) => spawnIsolated('/probe/probe', args, { ...base, ...options });
  const turns = async (count) => { for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve)); };
  // The same points in each run: xorshift32.
  let state = 2463534242;
  const random = (below) => {
    state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
    return (state >>> 0) % below;
  };
  const reasonOf = async (child) => (await child.exited).reason;
  const failed = ({ code, errnoName }) => errnoName ?? code;
  const ways = {
    'of a spawn that exits': () => reasonOf(start(['exit', '0'], { cgroup: limits })),
    'of a spawn that runs out of memory': () => reasonOf(start(['alloc', '256M'], { cgroup: limits })),
    'of a spawn that leaves orphans': () => reasonOf(start(['orphans', '3', 'quiet', '--', 'exit', '0'], { cgroup: limits, init: true })),
    'of a spawn without a program': () => spawnIsolated('/no/such/program', [], { ...base, cgroup: limits }).exited.catch(failed),
    'of a spawn that is killed at some turn': async () => {
      const child = start(['children', '3', 'quiet'], { cgroup: limits });
      await turns(random(300));
      child.kill('SIGKILL');
      return reasonOf(child);
    },
    'of a spawn with a time limit': () => reasonOf(start(['spin'], { cpuTimeLimit: 5 })),
    'killed with what runs in it': async () => {
      const group = await Cgroup.create(undefined, limits);
      const child = start(['children', '3', 'quiet'], { cgroup: group });
      await child.spawned;
      await turns(random(20));
      await group[Symbol.asyncDispose]();
      return reasonOf(child);
    },
    'killed while something starts in it': async () => {
      const group = await Cgroup.create(undefined, limits);
      const child = start(['children', '3', 'quiet'], { cgroup: group });
      const ended = child.exited.then(({ reason }) => reason, () => 'refused');
      await turns(random(300));
      await group.kill();
      child.kill('SIGKILL');
      await ended;
      await group.delete();
      return 'ended';
    },
    'frozen, then killed': async () => {
      const group = await Cgroup.create(undefined, limits);
      const child = start(['children', '3', 'quiet'], { cgroup: group });
      await child.spawned;
      await group.freeze();
      await group[Symbol.asyncDispose]();
      return reasonOf(child);
    },
    'watched by all means': async () => {
      const group = await Cgroup.create(undefined, limits);
      for (const event of ['oom', 'memory-high', 'pids-max', 'empty']) group.on(event, () => {});
      await group.onPressure('io', { stallMs: 100, windowMs: 2000 });
      let samples = 0;
      for await (const _ of group.watch({ intervalMs: 1 })) if (++samples === 3) break;
      await group.delete();
      return 'deleted';
    },
    'updated, with a child': async () => {
      const group = await Cgroup.create(undefined, limits);
      await group.update({ memory: '64M', pids: 'max' });
      const child = await group.child('inner', { pids: 5 });
      await child.update({ pids: 4 });
      await group.delete();
      return 'deleted';
    },
    'whose limits the kernel refuses': () => Cgroup.create(undefined, { ...limits, io: [{ device: '4095:7', readBps: 1 }] }).catch(failed),
  };
  const kinds = Object.keys(ways);
  const seen = {};
  const one = async (index) => {
    const kind = kinds[index % kinds.length];
    const told = await ways[kind]();
    (seen[kind] ??= {})[told] = (seen[kind][told] ?? 0) + 1;
  };
  let next = 0;
  const upTo = (count) => Promise.all(Array.from({ length: ${atOnce} }, async () => {
    while (next < count) await one(next++);
  }));
  const rows = (path) => readFileSync(path, 'utf8').split('\\n').length;
  const look = async () => {
    for (let i = 0; i < 3; i++) { await turns(100); globalThis.gc(); await new Promise((resolve) => setTimeout(resolve, 100)); }
    const descriptors = readdirSync('/proc/self/fd').map((fd) => { try { return readlinkSync('/proc/self/fd/' + fd).replace(/:\\[.*/, ''); } catch { return undefined; } });
    return {
      descriptors: descriptors.filter(Boolean).sort(),
      threads: readdirSync('/proc/self/task').length,
      children: readFileSync('/proc/self/task/' + process.pid + '/children', 'utf8').trim(),
      mounts: rows('/proc/self/mountinfo'),
      handles: process.getActiveResourcesInfo().filter((name) => name !== 'Timeout').sort(),
    };
  };
  await upTo(${warmUp});
  const before = await look();
  await upTo(${warmUp + total});
  const after = await look();
  console.log(JSON.stringify({ pid: process.pid, before, after, seen }));
`;

testNeeding(['v2-group', 'controller:memory', 'controller:pids'])(
  `${total} groups leave nothing`,
  async () => {
    const marker = new Marker();
    const before = census(['mounts']);
    const { stdout, stderr } = await inChild(script, { nodeOptions: ['--expose-gc'], env: marker.env, deadline: 170_000 });
    expect(stderr).toBe('');
    const { pid, seen, ...looks } = JSON.parse(stdout);
    expect(looks.after).toEqual(looks.before);
    expect(looks.after.children).toBe('');
    expect(marker.processes()).toEqual([]);
    expect(groupDirectories(new RegExp(`^cloister-.*-${pid}-`))).toEqual([]);
    expect(leaks(before, census(['mounts']))).toEqual([]);
    // Each ended as it was meant to.
    expect(Object.fromEntries(Object.entries(seen as Record<string, object>).map(([kind, told]) => [kind, Object.keys(told).sort().join()]))).toEqual({
      'of a spawn that exits': 'exit',
      'of a spawn that runs out of memory': 'oom',
      'of a spawn that leaves orphans': 'exit',
      'of a spawn without a program': 'ENOENT',
      'of a spawn that is killed at some turn': 'signal',
      'of a spawn with a time limit': 'cpu-time',
      'killed with what runs in it': 'signal',
      'killed while something starts in it': 'ended',
      'frozen, then killed': 'signal',
      'watched by all means': 'deleted',
      'updated, with a child': 'deleted',
      'whose limits the kernel refuses': expect.stringMatching(/ENODEV|ERR_CLOISTER_CGROUP_UNSUPPORTED/),
    });
  },
  180_000,
);
