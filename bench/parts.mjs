// The cost of each part: by leaving it out of a whole spawn, and by timing the steps of its plan one by one.

import { contest, full } from './contest.mjs';
import { preparePlan, startLimit } from './plan.mjs';

const without = {
  'network namespace': { namespaces: { net: 'host' } },
  'ipc namespace, /dev/mqueue': { namespaces: { ipc: 'host' } },
  'pid namespace, new /proc': { namespaces: { pid: 'host' } },
  'uts namespace': { namespaces: { uts: 'host' } },
  'cgroup namespace': { namespaces: { cgroup: 'host' } },
  'id map of a range': { idMap: 'self' },
  'cgroup with three limits': { cgroup: undefined },
  'masked paths': { maskedPaths: [] },
  'read-only paths': { readonlyPaths: [] },
  'system call filter': { seccomp: 'unconfined' },
  'mount namespace and all in it': { namespaces: { mount: 'host' } },
};

/** name → microseconds saved by leaving it out; as difference of medians. Some can't be left out by everybody. */
export async function partsByOption(program, options, rounds) {
  const contestants = { whole: full(program, { ...options, stdio: 'ignore' }) };
  const missing = {};
  for (const [name, change] of Object.entries(without)) {
    const { mounts, ...others } = options;
    const base = change.namespaces?.mount === 'host' ? others : options;
    const once = full(program, { ...base, ...change, stdio: 'ignore' });
    try {
      await once();
      contestants[name] = once;
    } catch (error) {
      missing[name] = error.message.split('\n')[0];
    }
  }
  const times = await contest(contestants, rounds, 'in a row');
  const saved = Object.entries(times).filter(([name]) => name !== 'whole');
  return { whole: times.whole, saved: Object.fromEntries(saved.map(([name, { median }]) => [name, times.whole.median - median])), missing };
}

/** The plan's steps, timed one by one inside the limit program: by what they are for, in order, and the rest of a spawn. */
export async function partsByStep(program, options, runs) {
  const prepared = await preparePlan(program, options);
  const limit = startLimit(prepared, 'vm', 'limit-trace');
  const text = await limit.trace(runs);
  const { all } = prepared.plan;
  const inParent = prepared.plan.steps.parent.length;
  const moments = {};
  const labels = new Map();
  for (const line of text.trim().split('\n')) {
    const [name, median, count, mean] = line.split('\t');
    if (!name.startsWith('step ')) {
      moments[name] = { median: Number(median), mean: Number(mean) };
      continue;
    }
    const index = Number(name.slice(5));
    const label = `${index < inParent ? 'parent' : 'child'}: ${all[index].label}`;
    const entry = labels.get(label) ?? { first: index, median: 0, mean: 0, calls: 0 };
    const share = Number(count) / runs;
    entry.first = Math.min(entry.first, index);
    entry.median += Number(median) * Math.min(1, Math.round(share));
    entry.mean += Number(mean) * share;
    entry.calls += share;
    labels.set(label, entry);
  }
  await limit.close();
  const steps = [...labels]
    .sort(([, a], [, b]) => a.first - b.first)
    .map(([label, { median, mean, calls }]) => ({ label, median, mean, calls: Math.round(calls) }));
  return { moments, steps };
}
