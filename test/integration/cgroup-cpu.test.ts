// Processor time: cgroup-v2.rst, "CPU"; scheduler/sched-bwc.rst.
import type { Cgroup, CgroupLimits } from 'cloister';
import { expect, test } from 'vitest';
import { makeGroup } from '../helpers/cgroups.js';
import { describeNeeding } from '../helpers/lane.js';
import { askFully, startProbe } from '../helpers/probe.js';

const usedUs = async (group: Cgroup): Promise<number> => (await group.stats()).cpu?.usageUs ?? Number.NaN;

describeNeeding(['controller:cpu'])('half a core', () => {
  test.each([1, 4])('is what %d spinning threads get of it, over 2 s', async (threads) => {
    const group = await makeGroup({ cpu: 0.5 });
    const { answers } = await askFully([['burn', 2_000, threads]], { cgroup: group });
    const { cpuUs, wallUs } = answers[0];
    const { periods = 0, throttledPeriods = 0 } = (await group.stats()).cpu ?? {};
    expect(cpuUs / wallUs).toBeLessThan(0.55);
    // A period that ended throttled is one whose quota was used up: where others of this machine took the processor away, there are fewer.
    if (throttledPeriods > 0.9 * periods) expect(cpuUs / wallUs).toBeGreaterThan(0.45);
    else expect(cpuUs).toBeGreaterThan(0.9 * throttledPeriods * 50_000);
    expect(throttledPeriods).toBeGreaterThan(0);
  });

  test('is what several sandboxes in a group share', async () => {
    const group = await makeGroup({ cpu: 0.5 });
    const began = performance.now();
    await Promise.all([1, 2].map(() => askFully([['burn', 1_000]], { cgroup: group })));
    // Of the whole time, as the two do not begin and end together.
    const used = ((await group.stats()).cpu?.usageUs ?? Number.NaN) / 1000 / (performance.now() - began);
    expect(used).toBeLessThan(0.6);
  });

  test('is told by stats()', async () => {
    const { process: child, lines } = startProbe([['burn', 500, 2], 'sleep'], { cgroup: { cpu: 0.5 } });
    await lines.until('ready');
    await lines.next();
    const { cpu } = await child.stats();
    // On a busy host it may get less than its quota, and is then never throttled.
    expect(cpu?.periods).toBeGreaterThan(0);
    expect(cpu?.throttledUs).toBeGreaterThanOrEqual(0);
    expect(cpu?.usageUs).toBeGreaterThan(10_000);
    expect(Math.abs((cpu?.userUs ?? 0) + (cpu?.systemUs ?? 0) - (cpu?.usageUs ?? 0))).toBeLessThan(20_000);
    child.kill();
    await child.exited;
  });
});

/** What two groups get of the same processor while both want it, until they have had `totalUs` together. */
async function sharesOf(first: CgroupLimits['cpu'], second: CgroupLimits['cpu'], totalUs: number): Promise<[number, number]> {
  const cpuset = { cpus: '0' };
  const groups = await Promise.all([first, second].map((cpu) => makeGroup({ ...(cpu === undefined ? {} : { cpu }), cpuset })));
  const [one, two] = groups as [Cgroup, Cgroup];
  for (const group of groups) await startProbe(['spin'], { cgroup: group }).process.spawned;
  const [startOne, startTwo] = [await usedUs(one), await usedUs(two)];
  for await (const { cpu } of one.watch({ intervalMs: 20 })) {
    const [a, b] = [(cpu?.usageUs ?? Number.NaN) - startOne, (await usedUs(two)) - startTwo];
    if (!(a + b < totalUs)) return [a, b];
  }
  throw new Error('the group was deleted');
}

describeNeeding(['controller:cpu', 'controller:cpuset'])('one core', () => {
  test('is shared 1:3 by weights', async () => {
    const [one, two] = await sharesOf({ weight: 100 }, { weight: 300 }, 2_000_000);
    expect(two / one).toBeGreaterThan(3 * 0.85);
    expect(two / one).toBeLessThan(3 * 1.15);
  });

  test('is shared evenly without', async () => {
    const [one, two] = await sharesOf(undefined, undefined, 1_000_000);
    expect(two / one).toBeGreaterThan(0.85);
    expect(two / one).toBeLessThan(1.15);
  });

  test('is left by an idle group to one that wants it', async () => {
    const [idle, other] = await sharesOf({ idle: true }, { weight: 100 }, 1_000_000);
    expect(idle / other).toBeLessThan(0.1);
  });
});

describeNeeding(['controller:cpu'])('burst', () => {
  // 20 ms in 100, and now and then a piece of work of 30 ms.
  const rounds = Array.from(
    { length: 3 },
    () =>
      [
        ['sleep', 300],
        ['spin', 30],
      ] as const,
  ).flat();
  const throttled = async (burstUs: number): Promise<number | undefined> => {
    const group = await makeGroup({ cpu: { max: 0.2, burstUs } });
    await askFully(rounds, { cgroup: group });
    return (await group.stats()).cpu?.throttledPeriods;
  };

  test('lets a group that was idle use what it has not used before', async () => {
    // Not a count of its own: starting a program may be more than a slow machine has in one period.
    const [without, withBurst] = [await throttled(0), await throttled(20_000)];
    expect(without).toBeGreaterThanOrEqual(2);
    expect(withBurst).toBeLessThan(without ?? 0);
  });
});
