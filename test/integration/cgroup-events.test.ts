// What a group tells: 'oom', 'memory-high', 'pids-max', 'empty'. 'pressure' is in a file of its own.
import { once } from 'node:events';
import { runIsolated } from 'cloister';
import { expect, test } from 'vitest';
import { census, leaks, settled } from '../helpers/census.js';
import { makeGroup, startIn } from '../helpers/cgroups.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { askFully, insideFixture, startProbe, withFixtures } from '../helpers/probe.js';

describeNeeding(['controller:memory'])("'oom'", () => {
  const limits = { memory: { max: '32M', swapMax: 0 } } as const;
  const bomb = (group: Awaited<ReturnType<typeof makeGroup>>) => runIsolated(insideFixture('probe'), ['alloc', '256M'], withFixtures({ cgroup: group }));

  test('tells each kill once', async () => {
    const group = await makeGroup(limits);
    let kills = 0;
    group.on('oom', (event) => {
      kills += event.kills;
    });
    for (const expected of [1, 2, 3]) {
      await bomb(group);
      await settled(() => kills === expected, { what: `kill ${expected}` });
    }
    expect((await group.stats()).memory?.events.oomKill).toBe(3);
  });

  test('tells the listener that comes later of what comes later', async () => {
    const group = await makeGroup(limits);
    await bomb(group);
    const told = once(group, 'oom');
    await bomb(group);
    expect(await told).toEqual([{ kills: 1 }]);
  });

  test('is not told by the end of the group, nor of another group', async () => {
    const [group, other] = [await makeGroup(limits), await makeGroup(limits)];
    const told: unknown[] = [];
    group.on('oom', (event) => told.push(event));
    const seen = once(other, 'oom');
    await bomb(other);
    await seen;
    await group.delete();
    expect(told).toEqual([]);
  });
});

testNeeding(['controller:memory', 'cgroup-v2'])("'memory-high' tells that it was passed", async () => {
  const group = await makeGroup({ memory: { high: '8M' } });
  const told = once(group, 'memory-high');
  const probe = startProbe([['alloc', '12M'], 'sleep'], { cgroup: group });
  const [{ count }] = await told;
  expect(count).toBeGreaterThanOrEqual(1);
  expect((await group.stats()).memory?.events.high).toBeGreaterThanOrEqual(count);
  probe.process.kill('SIGKILL');
  await probe.process.exited;
});

testNeeding(['controller:pids'])("'pids-max' tells forks that were refused", async () => {
  const group = await makeGroup({ pids: 5 });
  const told = once(group, 'pids-max');
  const { answers } = await askFully([['forkbomb-light', 10]], { cgroup: group });
  expect(answers[0]).toMatchObject({ errno: 'EAGAIN', forked: 4 });
  expect(await told).toEqual([{ count: 1 }]);
});

describeNeeding(['v2-group'])("'empty'", () => {
  test('tells that the last process has ended', async () => {
    const group = await makeGroup();
    const { process: child, lines } = startProbe([['children', 3]], { cgroup: group });
    await lines.next();
    const empty = once(group, 'empty');
    child.kill('SIGKILL');
    await empty;
    expect(await group.processes()).toEqual([]);
    expect((await group.stats()).populated).toBe(false);
  });

  test('comes each time', async () => {
    const group = await makeGroup();
    let times = 0;
    group.on('empty', () => times++);
    for (const expected of [1, 2, 3]) {
      const { ended, stdin } = await startIn(group, ['cat']);
      stdin.end();
      await ended;
      await settled(() => times === expected, { what: `the end of program ${expected}` });
    }
  });

  test('is not told of a group that nobody has been in', async () => {
    const [group, other] = [await makeGroup(), await makeGroup()];
    let times = 0;
    group.on('empty', () => times++);
    const told = once(other, 'empty');
    await askFully([['exit', 0]], { cgroup: other });
    await told;
    expect(times).toBe(0);
  });
});

describeNeeding(['v2-group'])('listeners', () => {
  const events = ['oom', 'memory-high', 'pids-max', 'empty'] as const;

  test('that are removed leave nothing', async () => {
    const group = await makeGroup();
    await group.stats();
    const before = census(['descriptors', 'threads']);
    const listener = (): void => undefined;
    for (let round = 0; round < 3; round++) {
      for (const event of events) group.on(event, listener).on(event, listener);
      for (const event of events) group.off(event, listener).off(event, listener);
    }
    await settled(() => leaks(before, census(['descriptors', 'threads'])), { what: 'what watched' });
  });

  test('of a group that is deleted leave nothing', async () => {
    const before = census(['descriptors', 'threads']);
    const group = await makeGroup();
    for (const event of events) group.on(event, () => undefined);
    await group.delete();
    await settled(() => leaks(before, census(['descriptors', 'threads'])), { what: 'what watched' });
  });
});
