// Pressure stall information: Documentation/accounting/psi.rst.
import { once } from 'node:events';
import { chmodSync, mkdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Cgroup } from 'cloister';
import { expect, test } from 'vitest';
import { census, leaks, settled } from '../helpers/census.js';
import { makeGroup } from '../helpers/cgroups.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { type Question, startProbe } from '../helpers/probe.js';
import { saying } from './refusals.js';
import { temporary } from './trees.js';

// What an unprivileged trigger may ask for: whole seconds, in twos.
const often = { stallMs: 100, windowMs: 2_000 } as const;

describeNeeding(['v2-group', 'pressure'])('onPressure', () => {
  testNeeding(['controller:cpu'])('is told by a group whose threads wait for a processor, and not by an idle one beside it', async () => {
    // The idle one is not held back while its program starts: what that waited for would be told later (psi_avgs_work, each 2 s).
    const [busy, idle] = [await makeGroup({ cpu: 0.2 }), await makeGroup()];
    const resting = startProbe(['sleep'], { cgroup: idle });
    await resting.lines.until('ready');
    const heard: string[] = [];
    idle.on('pressure', ({ resource }) => heard.push(resource));
    for (const group of [busy, idle]) await group.onPressure('cpu', often);
    const told = once(busy, 'pressure');
    startProbe([['burn', 30_000, 4]], { cgroup: busy });
    expect(await told).toEqual([{ resource: 'cpu' }]);
    // A second one, so that the idle group's windows have ended as well.
    await once(busy, 'pressure');
    expect(heard).toEqual([]);
    expect((await busy.stats()).pressure?.cpu?.some.totalUs).toBeGreaterThan(100_000);
  });

  /** Whether the one is told, while the other hears nothing. */
  const memoryStalls = async (tight: Cgroup, roomy: Cgroup, questions: readonly Question[]) => {
    // Where both have a file of their own: on the disk, as pages of a tmpfs can go nowhere.
    const directory = temporary();
    chmodSync(directory, 0o777);
    const start = async (cgroup: Cgroup) => {
      mkdirSync(join(directory, basename(cgroup.name)), { mode: 0o777 });
      chmodSync(join(directory, basename(cgroup.name)), 0o777);
      const mounts = [{ type: 'bind', source: join(directory, basename(cgroup.name)), target: '/work' }] as const;
      const { process: child } = startProbe(questions, { cgroup, mounts });
      await child.spawned;
    };
    const heard: string[] = [];
    roomy.on('pressure', ({ resource }) => heard.push(resource));
    for (const group of [tight, roomy]) await group.onPressure('memory', { stallMs: 20, windowMs: 2_000 });
    const told = once(tight, 'pressure');
    for (const group of [roomy, tight]) await start(group);
    expect(await told).toEqual([{ resource: 'memory' }]);
    expect(heard).toEqual([]);
  };

  testNeeding(['controller:memory', 'cgroup-v1'])('is told by a group that waits for its own pages, and not by one that has room', async () => {
    const [tight, roomy] = [await makeGroup({ memory: '8M' }), await makeGroup({ memory: '256M' })];
    await memoryStalls(tight, roomy, [
      ['fill', '/work/file', '64M'],
      ['reread', '/work/file'],
    ]);
  });

  testNeeding(['controller:memory', 'cgroup-v2'])('is told by a group that is held back above memory.high, and not by one that has room', async () => {
    const [tight, roomy] = [await makeGroup({ memory: { high: '8M' } }), await makeGroup({ memory: { high: '256M' } })];
    await memoryStalls(tight, roomy, [['alloc', '64M'], 'sleep']);
  });

  test('can be taken back, and leaves nothing', async () => {
    const group = await makeGroup();
    await group.stats();
    const before = census(['descriptors', 'threads']);
    for (const resource of ['cpu', 'memory', 'io'] as const) {
      const trigger = await group.onPressure(resource, { kind: 'full', ...often });
      trigger[Symbol.dispose]();
      trigger[Symbol.dispose]();
    }
    await group.onPressure('io', often);
    await group.delete();
    await settled(() => leaks(before, census(['descriptors', 'threads'])), { what: 'the triggers' });
  });

  test('wants no more stall than window', async () => {
    const group = await makeGroup();
    const wrong = (...args: Parameters<typeof group.onPressure>) =>
      group.onPressure(...args).then(
        () => 'accepted',
        (error: unknown) => (error instanceof TypeError ? error.message : 'refused, but not as a wrong option'),
      );
    expect([
      await wrong('disk' as 'io', often),
      await wrong('io', { stallMs: 0, windowMs: 2_000 }),
      await wrong('io', { stallMs: 2_001, windowMs: 2_000 }),
      await wrong('io', { stallMs: 10, windowMs: 499 }),
      await wrong('io', { stallMs: 10, windowMs: 10_001 }),
      await wrong('io', { stallMs: 10, windowMs: Number.NaN }),
      await wrong('io', { kind: 'most' as 'some', ...often }),
      await wrong('io', { ...often, every: 1 } as never),
    ]).toMatchInlineSnapshot(`
      [
        "option 'resource' takes 'cpu', 'memory' or 'io'; got "disk"",
        "option 'stallMs' takes milliseconds: more than 0, and not more than windowMs; got 0",
        "option 'stallMs' takes milliseconds: more than 0, and not more than windowMs; got 2001",
        "option 'windowMs' takes milliseconds from 500 to 10000; got 499",
        "option 'windowMs' takes milliseconds from 500 to 10000; got 10001",
        "option 'windowMs' takes milliseconds from 500 to 10000; got NaN",
        "option 'kind' takes 'some' or 'full'; got "most"",
        "option 'every' takes nothing: there is no such option; got 1",
      ]
    `);
  });
});

testNeeding(['v2-group', 'pressure', 'unprivileged'])('a window that an ordinary user may not have is explained', async () => {
  const group = await makeGroup();
  expect((await saying(group.onPressure('io', { stallMs: 10, windowMs: 1_000 }))).replace(/ \S+\/io\.pressure/, ' FILE')).toMatch(
    /^EINVAL: watch for pressure FILE/,
  );
});
