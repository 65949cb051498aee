// Processes: cgroup-v2.rst, "PID"; v1 has the same files.
import { once } from 'node:events';
import { type Cgroup, runIsolated } from 'cloister';
import { expect, test } from 'vitest';
import { settled } from '../helpers/census.js';
import { makeGroup, startIn } from '../helpers/cgroups.js';
import { describeNeeding } from '../helpers/lane.js';
import { askFully, parseAnswer, startProbe } from '../helpers/probe.js';
import { Marker } from '../lifecycle/story.js';

// More than any limit here, and less than would hurt where there is none.
const most = 2_000;

// Each of them stays when it has been refused for the first time, which tells nobody.
const full = (group: Cgroup, count: number) => settled(async () => (await group.stats()).pids?.current === count, { what: 'a full group' });

describeNeeding(['controller:pids'])('a fork bomb', () => {
  test('is held, seen, and gone after the kill', async () => {
    const marker = new Marker();
    const group = await makeGroup({ pids: 32 });
    const refused = once(group, 'pids-max');
    const { process: child, lines } = startProbe([['fork-bomb', most]], { cgroup: group, env: marker.env });
    expect(parseAnswer('fork-bomb', await lines.next())).toMatchObject({ errno: 'EAGAIN' });
    const [{ count }] = await refused;
    expect(count).toBeGreaterThanOrEqual(1);
    await full(group, 32);
    const { pids } = await child.stats();
    expect(pids).toMatchObject({ current: 32, peak: 32 });
    expect(pids?.maxEvents).toBeGreaterThanOrEqual(count);
    expect(marker.pids().length).toBe(32);

    child.kill('SIGKILL');
    expect(await child.exited).toMatchObject({ reason: 'signal', usage: { pidsPeak: 32 } });
    expect(marker.processes()).toEqual([]);
    expect(await group.processes()).toEqual([]);
  });

  test('in a group of its own', async () => {
    const { process: child, lines } = startProbe([['fork-bomb', most]], { cgroup: { pids: 32 } });
    expect(parseAnswer('fork-bomb', await lines.next())).toMatchObject({ errno: 'EAGAIN' });
    child.kill('SIGKILL');
    const { usage } = await child.exited;
    expect(usage.pidsPeak).toBe(32);
  });

  test('ends by a timeout', async () => {
    const marker = new Marker();
    const { process: child } = startProbe([['fork-bomb', most]], { cgroup: { pids: 32 }, env: marker.env, timeout: 300, init: true });
    expect((await child.exited).reason).toBe('timeout');
    expect(marker.processes()).toEqual([]);
  });

  test('in a group of several sandboxes takes from all, and ends with the group', async () => {
    const group = await makeGroup({ pids: 40 });
    const bomb = startProbe([['fork-bomb', most]], { cgroup: group });
    expect(parseAnswer('fork-bomb', await bomb.lines.next())).toMatchObject({ errno: 'EAGAIN' });
    await full(group, 40);
    await group.kill();
    // Not pids.current: whoever is dead and not yet waited for counts there (pids_release).
    expect(await group.processes()).toEqual([]);
    expect(await bomb.process.exited).toMatchObject({ signal: 'SIGKILL', reason: 'signal' });
  });
});

describeNeeding(['controller:pids'])('a limit of processes', () => {
  test('is exact', async () => {
    const { answers, result } = await askFully([['forkbomb-light', 100]], { cgroup: { pids: 10 } });
    expect(answers[0]).toMatchObject({ errno: 'EAGAIN', forked: 9 });
    expect(result.usage.pidsPeak).toBe(10);
  });

  test('that is not reached is no event', async () => {
    const { answers, result } = await askFully([['forkbomb-light', 9]], { cgroup: { pids: 10 } });
    expect(answers[0]).toMatchObject({ errno: null, forked: 9 });
    expect(result).toMatchObject({ exitCode: 0, usage: { pidsPeak: 10 } });
  });

  test('of one is enough for a program that makes none, and not for one with init', async () => {
    expect(await askFully([['forkbomb-light', 1]], { cgroup: { pids: 1 } })).toMatchObject({ answers: [{ errno: 'EAGAIN', forked: 0 }] });
    expect(await askFully([['forkbomb-light', 1]], { cgroup: { pids: 2 }, init: true })).toMatchObject({ answers: [{ errno: 'EAGAIN', forked: 0 }] });
  });

  test('counts threads as well', async () => {
    const group = await makeGroup({ pids: 4 });
    const { lines } = await startIn(group, [['burn', 500, 8]]);
    await lines.until('ready');
    expect(parseAnswer('burn', await lines.next())).toMatchObject({ errno: 'EAGAIN' });
    expect((await group.stats()).pids).toMatchObject({ peak: 4 });
  });

  // v1 would let a process move into a group that is full (cgroup-v1/pids.rst), v2 refuse the clone.
  test('that leaves no room for the program is refused before anything happens', async () => {
    await expect(runIsolated('true', { cgroup: { pids: 0 } })).rejects.toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'cgroup.pids' takes at least 1: the program itself is a process; got 0]`,
    );
  });
});
