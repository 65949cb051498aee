// A spawn in a group: its own, which is made for limits and goes with it, or one that is borrowed.
import { existsSync } from 'node:fs';
import { Cgroup, type IsolationError, runIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { groupDirectories, groupsOfProcess, makeGroup } from '../helpers/cgroups.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { ask, askFully, insideFixture, startProbe, withFixtures } from '../helpers/probe.js';
import { patience } from '../helpers/repeats.js';
import { refusal } from './refusals.js';

const MiB = 2 ** 20;
const three = { memory: '64M', cpu: 1, pids: 20 } as const;
const withThree = ['controller:memory', 'controller:cpu', 'controller:pids'] as const;

describeNeeding(withThree)('with limits', () => {
  test('it has a group, with these limits, while it runs', async () => {
    const { process: child, lines } = startProbe(['sleep'], { cgroup: three });
    await lines.until('ready');
    const group = child.cgroup;
    expect(group).toBeInstanceOf(Cgroup);
    expect(await group?.processes()).toEqual([child.pid]);
    expect(await group?.limits()).toMatchObject({ memory: { max: 64 * MiB }, cpu: { max: 1 }, pids: 20 });
    expect(await child.stats()).toMatchObject({ populated: true, freezer: 'thawed', pids: { current: 1 }, memory: { events: { oomKill: 0 } } });
    expect(groupDirectories(group?.name ?? '').length).toBeGreaterThan(0);
    child.kill();
    await child.exited;
  });

  test('the group is gone when `exited` resolves', async () => {
    const { process: child, lines } = startProbe(['sleep'], { cgroup: three });
    await lines.until('ready');
    const name = child.cgroup?.name ?? '';
    child.kill();
    await child.exited;
    expect(groupDirectories(name)).toEqual([]);
    expect((await refusal(child.stats())).code).toBe('ERR_CLOISTER_DISPOSED');
  });

  test('what it leaves running is gone, too', async () => {
    const { process: child, lines } = startProbe(
      [
        ['orphans', 5, 'quiet'],
        ['exit', 0],
      ],
      { cgroup: three, namespaces: { pid: 'host' } },
    );
    // The last of them and its parent, who is waited for, are there together.
    await lines.next();
    const name = child.cgroup?.name ?? '';
    expect(await child.exited).toMatchObject({ exitCode: 0, reason: 'exit', usage: { pidsPeak: 7 } });
    expect(groupDirectories(name)).toEqual([]);
  });

  test('the receipt names the group and its controllers', async () => {
    const { process: child, lines } = startProbe(['sleep'], { cgroup: three });
    await lines.until('ready');
    const name = child.cgroup?.name ?? '';
    const directories = groupDirectories(name);
    child.kill();
    const { cgroup } = (await child.exited).isolation;
    if (!cgroup) throw new Error('the receipt has none');
    const { mode } = await Cgroup.support();
    expect(cgroup.mode).toBe(mode);
    expect([...cgroup.controllers].sort()).toEqual(expect.arrayContaining(['cpu', 'memory', 'pids']));
    expect(directories.some((directory) => directory.endsWith(cgroup.path))).toBe(true);
    expect(existsSync(cgroup.path)).toBe(false);
  });

  test('inside, it is at the root of every hierarchy', async () => {
    const [{ cgroup: inside }] = await ask(['cgroup'], { cgroup: three });
    expect(inside.map(({ path }) => path)).toEqual(inside.map(() => '/'));
    expect(inside.length).toBeGreaterThan(0);
  });

  test("with the host's cgroup namespace it sees the name of its group", async () => {
    const { answers, result } = await askFully(['cgroup'], { cgroup: three, namespaces: { cgroup: 'host' } });
    const paths = answers[0].cgroup.map(({ path }) => path);
    expect(paths.filter((path) => path.includes('cloister-')).length).toBeGreaterThan(0);
    expect(result.isolation.namespaces.cgroup).toBe('host');
  });

  test('the processor time is that of the group: children that nobody waited for count', async () => {
    const { answers, result } = await askFully([['spin', 100]], { cgroup: three });
    expect(answers[0].errno).toBeNull();
    const { cpuUserMs, cpuSystemMs, pidsPeak, oomKills } = result.usage;
    expect(cpuUserMs + cpuSystemMs).toBeGreaterThan(95);
    // An emulated processor takes its time for the start, too.
    expect(cpuUserMs + cpuSystemMs).toBeLessThan(400 * patience);
    expect({ pidsPeak, oomKills }).toEqual({ pidsPeak: 1, oomKills: 0 });
  });

  test('it is never outside of the group: the first thing it does counts', async () => {
    const { result } = await askFully([['alloc', '8M']], { cgroup: three });
    expect(result.usage.memoryPeakBytes).toBeGreaterThan(8 * MiB);
  });

  test('a start that fails removes it', async () => {
    const before = groupsOfProcess();
    const error = await refusal(runIsolated('/no/such/program', { cgroup: three }));
    expect(error.code).toBe('ERR_CLOISTER_NO_PROGRAM');
    expect(groupsOfProcess()).toEqual(before);
  });

  test('one that was aborted before it began removes it', async () => {
    const before = groupsOfProcess();
    expect((await runIsolated('true', { cgroup: three, signal: AbortSignal.abort() })).reason).toBe('aborted');
    expect(groupsOfProcess()).toEqual(before);
  });

  test('many at once, each with its own', async () => {
    const before = groupsOfProcess();
    const results = await Promise.all(Array.from({ length: 16 }, () => askFully([['alloc', '4M']], { cgroup: three })));
    expect(results.map(({ result }) => result.usage.pidsPeak)).toEqual(results.map(() => 1));
    expect(groupsOfProcess()).toEqual(before);
  });
});

describeNeeding(withThree)('in a group of the caller', () => {
  test('which is kept', async () => {
    const group = await makeGroup(three);
    const { process: child, lines } = startProbe(['sleep'], { cgroup: group });
    await lines.until('ready');
    expect(child.cgroup).toBe(group);
    expect(await group.processes()).toEqual([child.pid]);
    child.kill();
    const { isolation } = await child.exited;
    expect(isolation.cgroup ? isolation.cgroup.path : '').toMatch(new RegExp(`/${group.name}$`));
    expect(await group.processes()).toEqual([]);
    expect(await group.limits()).toMatchObject({ memory: { max: 64 * MiB }, pids: 20 });
  });

  test('the usage is its own, and of the group only what changed', async () => {
    const group = await makeGroup(three);
    await askFully(
      [
        ['spin', 100],
        ['forkbomb-light', 7],
      ],
      { cgroup: group },
    );
    const { result } = await askFully(
      [
        ['alloc', '4M'],
        ['forkbomb-light', 3],
      ],
      { cgroup: group },
    );
    expect(result.usage).toMatchObject({ memoryPeakSource: 'rusage', oomKills: 0 });
    expect(result.usage.cpuUserMs).toBeLessThan(95);
    // The group has had more of them before: its peak has not changed.
    expect(result.usage.pidsPeak).toBe(0);
  });

  test('oomKills is the change', async () => {
    const group = await makeGroup({ memory: { max: '32M', swapMax: 0 } });
    const bomb = () => runIsolated(insideFixture('probe'), ['alloc', '256M'], withFixtures({ cgroup: group }));
    expect([(await bomb()).usage.oomKills, (await bomb()).usage.oomKills]).toEqual([1, 1]);
    expect((await group.stats()).memory?.events.oomKill).toBe(2);
    expect((await askFully([['alloc', '1M']], { cgroup: group })).result).toMatchObject({ reason: 'exit', usage: { oomKills: 0 } });
  });

  test('that has been deleted is refused', async () => {
    const group = await Cgroup.create();
    await group.delete();
    expect((await refusal(runIsolated('true', { cgroup: group }))).code).toBe('ERR_CLOISTER_DISPOSED');
  });
});

describe('without one', () => {
  test('there is nothing to count', async () => {
    const { process: child, lines } = startProbe(['sleep']);
    await lines.until('ready');
    expect(child.cgroup).toBeUndefined();
    const error: IsolationError = await refusal(child.stats());
    expect(error.name).toBe('CgroupError');
    expect(`${error.code}: ${error.message}`).toMatchInlineSnapshot(
      `"ERR_CLOISTER_NO_CGROUP: this process has no cgroup of its own, so there is nothing to count"`,
    );
    child.kill();
    const { isolation, usage } = await child.exited;
    expect(isolation.cgroup).toBe(false);
    expect(usage).toMatchObject({ memoryPeakSource: 'rusage' });
    expect(usage.oomKills).toBeUndefined();
  });
});

describeNeeding(['controller:cpu'])('cpuTimeLimit', () => {
  test('is measured on the group: threads and children together', async () => {
    const { process: child } = startProbe([['burn', 60_000, 4]], { cpuTimeLimit: 300 });
    const result = await child.exited;
    expect(result).toMatchObject({ exitCode: null, signal: 'SIGKILL', reason: 'cpu-time' });
    expect(result.usage.cpuUserMs + result.usage.cpuSystemMs).toBeGreaterThanOrEqual(300);
  });

  test('does not count what a program waits', async () => {
    const { result } = await askFully([['sleep', 600 * patience]], { cpuTimeLimit: 300 * patience });
    expect(result).toMatchObject({ exitCode: 0, reason: 'exit' });
  });

  test('makes a group if none is given', async () => {
    const { result } = await askFully(['ids'], { cpuTimeLimit: 10_000 });
    expect(result.isolation.cgroup).not.toBe(false);
    expect(groupsOfProcess()).toEqual([]);
  });

  testNeeding(['controller:pids'])('in a borrowed group is what it has used since', async () => {
    const group = await makeGroup({ pids: 20 });
    await askFully([['spin', 1500]], { cgroup: group });
    expect((await askFully([['spin', 50]], { cgroup: group, cpuTimeLimit: 1400 })).result).toMatchObject({ reason: 'exit' });
    const { process: child } = startProbe(['spin'], { cgroup: group, cpuTimeLimit: 300 });
    expect(await child.exited).toMatchObject({ reason: 'cpu-time', signal: 'SIGKILL' });
    expect(await group.processes()).toEqual([]);
  });
});
