// Limits of a group that runs: raised, lowered, lifted, and read back. Those of devices, disks and processors are in files of their own.
import type { Cgroup, CgroupLimits, CgroupLimitsNow } from 'cloister';
import { describe, expect, test } from 'vitest';
import { makeGroup, startIn } from '../helpers/cgroups.js';
import { type Ability, describeNeeding, testNeeding } from '../helpers/lane.js';
import { refusal, saying } from './refusals.js';

const MiB = 2 ** 20;

/** Set one after the other on a group in which a program runs; each is what limits() then says. */
async function runningWith(first: CgroupLimits): Promise<Cgroup> {
  const group = await makeGroup(first);
  const { lines } = await startIn(group, ['sleep']);
  await lines.until('ready');
  return group;
}

type Case = [what: string, needs: Ability[], first: CgroupLimits, then: [CgroupLimits, Partial<CgroupLimitsNow>][]];
const cases: Case[] = [
  [
    'memory.max',
    ['controller:memory'],
    { memory: '64M' },
    [
      [{ memory: '128M' }, { memory: expect.objectContaining({ max: 128 * MiB }) }],
      [{ memory: { max: 32 * MiB } }, { memory: expect.objectContaining({ max: 32 * MiB }) }],
      [{ memory: 'max' }, { memory: expect.objectContaining({ max: Infinity }) }],
    ],
  ],
  [
    'memory.swapMax',
    ['controller:memory'],
    { memory: { max: '64M', swapMax: '64M' } },
    [
      [{ memory: { swapMax: 0 } }, { memory: expect.objectContaining({ max: 64 * MiB, swapMax: 0 }) }],
      [{ memory: { swapMax: '128M' } }, { memory: expect.objectContaining({ max: 64 * MiB, swapMax: 128 * MiB }) }],
      // The sum of both, which v1 limits, goes along.
      [{ memory: { max: '256M' } }, { memory: expect.objectContaining({ max: 256 * MiB, swapMax: 128 * MiB }) }],
      [{ memory: { max: '16M' } }, { memory: expect.objectContaining({ max: 16 * MiB, swapMax: 128 * MiB }) }],
      [{ memory: { max: '32M', swapMax: 0 } }, { memory: expect.objectContaining({ max: 32 * MiB, swapMax: 0 }) }],
      [{ memory: { max: 'max', swapMax: 'max' } }, { memory: expect.objectContaining({ max: Infinity, swapMax: Infinity }) }],
    ],
  ],
  [
    'memory.high, low, min and oomGroup',
    ['controller:memory', 'cgroup-v2'],
    { memory: { max: '64M', high: '48M', low: '8M', min: '4M', oomGroup: true } },
    [
      [{ memory: { high: '32M' } }, { memory: expect.objectContaining({ max: 64 * MiB, high: 32 * MiB, low: 8 * MiB, min: 4 * MiB, oomGroup: true }) }],
      [{ memory: { high: 'max', low: '16M', oomGroup: false } }, { memory: expect.objectContaining({ high: Infinity, low: 16 * MiB, oomGroup: false }) }],
      [{ memory: { low: 0, min: 'max' } }, { memory: expect.objectContaining({ low: 0, min: Infinity, max: 64 * MiB }) }],
    ],
  ],
  [
    'cpu.max',
    ['controller:cpu'],
    { cpu: 0.5 },
    [
      [{ cpu: 1.5 }, { cpu: expect.objectContaining({ max: 1.5, periodUs: 100_000 }) }],
      [{ cpu: { max: 0.25 } }, { cpu: expect.objectContaining({ max: 0.25 }) }],
      // The share of time stays, however long a period is.
      [{ cpu: { periodUs: 20_000 } }, { cpu: expect.objectContaining({ max: 0.25, periodUs: 20_000 }) }],
      [{ cpu: { max: 2, periodUs: 500_000 } }, { cpu: expect.objectContaining({ max: 2, periodUs: 500_000 }) }],
      [{ cpu: { max: 'max' } }, { cpu: expect.objectContaining({ max: Infinity }) }],
    ],
  ],
  [
    'cpu.weight',
    ['controller:cpu'],
    { cpu: { weight: 50 } },
    [
      [{ cpu: { weight: 10_000 } }, { cpu: expect.objectContaining({ weight: 10_000, max: Infinity }) }],
      [{ cpu: { weight: 1 } }, { cpu: expect.objectContaining({ weight: 1 }) }],
      [{ cpu: { weight: 100 } }, { cpu: expect.objectContaining({ weight: 100 }) }],
    ],
  ],
  [
    'cpu.burstUs and idle',
    ['controller:cpu'],
    { cpu: { max: 0.5, burstUs: 20_000 } },
    [
      [{ cpu: { burstUs: 50_000 } }, { cpu: expect.objectContaining({ burstUs: 50_000, max: 0.5 }) }],
      [{ cpu: { burstUs: 0 } }, { cpu: expect.objectContaining({ burstUs: 0 }) }],
      [{ cpu: { max: 1, burstUs: 90_000 } }, { cpu: expect.objectContaining({ burstUs: 90_000, max: 1 }) }],
      // The burst may not be larger than the quota: both have to change together.
      [{ cpu: { max: 0.1, burstUs: 5_000 } }, { cpu: expect.objectContaining({ burstUs: 5_000, max: 0.1 }) }],
      [{ cpu: { idle: true } }, { cpu: expect.objectContaining({ idle: true, max: 0.1 }) }],
      [{ cpu: { idle: false } }, { cpu: expect.objectContaining({ idle: false }) }],
    ],
  ],
  [
    'pids',
    ['controller:pids'],
    { pids: 10 },
    [
      [{ pids: 1000 }, { pids: 1000 }],
      [{ pids: 1 }, { pids: 1 }],
      [{ pids: 0 }, { pids: 0 }],
      [{ pids: 'max' }, { pids: Infinity }],
    ],
  ],
  [
    'several at once, and only those',
    ['controller:memory', 'controller:pids', 'controller:cpu'],
    { memory: '64M', pids: 10, cpu: 1 },
    [
      [
        { memory: '32M', pids: 20 },
        { memory: expect.objectContaining({ max: 32 * MiB }), pids: 20, cpu: expect.objectContaining({ max: 1 }) },
      ],
      [{}, { memory: expect.objectContaining({ max: 32 * MiB }), pids: 20, cpu: expect.objectContaining({ max: 1 }) }],
    ],
  ],
];

describe('update', () => {
  for (const [what, needs, first, then] of cases) {
    testNeeding(needs)(what, async () => {
      const group = await runningWith(first);
      for (const [limits, now] of then) {
        await group.update(limits);
        expect(await group.limits()).toMatchObject(now);
      }
    });
  }
});

describeNeeding(['controller:memory'])('limits()', () => {
  test('are numbers, Infinity where there is none', async () => {
    const now = await (await makeGroup()).limits();
    expect(now.memory).toMatchObject({ max: Infinity, high: Infinity, low: 0, min: 0 });
    expect(now.pids ?? Infinity).toBe(Infinity);
    expect(now.cpu?.max ?? Infinity).toBe(Infinity);
    expect(now.io ?? []).toEqual([]);
  });

  test('of a size that is no whole number of pages are what the kernel makes of it', async () => {
    const group = await makeGroup({ memory: 10 * MiB + 1 });
    expect((await group.limits()).memory?.max).toBe(10 * MiB);
  });
});

describeNeeding(['controller:memory'])('an update that fails', () => {
  const plainly = (text: string): string => text.replaceAll(/\S*\/cloister-[^/\s]+/g, 'GROUP');

  testNeeding(['cgroup-v1'])('below what is used is told: v1 makes room, or refuses', async () => {
    const group = await makeGroup({ memory: { max: '64M', swapMax: 0 } });
    const { lines } = await startIn(group, [['alloc', '16M'], 'sleep']);
    await lines.until('ready');
    expect(plainly(await saying(group.update({ memory: { max: '1M' } })))).toMatchInlineSnapshot(
      `"EBUSY: set memory.limit_in_bytes to 1048576 GROUP/memory.limit_in_bytes (write): more than that is in use, and cannot be freed"`,
    );
    expect((await group.limits()).memory?.max).toBe(64 * MiB);
  });

  testNeeding(['cgroup-v1'])('names what v1 cannot express', async () => {
    const group = await makeGroup({ memory: '64M' });
    expect([
      await saying(group.update({ memory: { high: '1M' } })),
      await saying(group.update({ memory: { low: '1M' } })),
      await saying(group.update({ memory: { min: 0 } })),
      await saying(group.update({ memory: { oomGroup: true } })),
    ]).toMatchInlineSnapshot(`
      [
        "cgroup v1 cannot express memory.high: it has a hard limit only (memory.limit_in_bytes)",
        "cgroup v1 cannot express memory.low: it has a hard limit only (memory.limit_in_bytes)",
        "cgroup v1 cannot express memory.min: it has a hard limit only (memory.limit_in_bytes)",
        "cgroup v1 cannot express memory.oomGroup: its OOM killer takes one process at a time",
      ]
    `);
    const error = await refusal(group.update({ memory: { high: '1M' } }));
    expect([error.name, error.code]).toEqual(['CgroupError', 'ERR_CLOISTER_CGROUP_UNSUPPORTED']);
    expect(await saying(makeGroup({ memory: { swapMax: 0 } }))).toMatchInlineSnapshot(
      `"cgroup v1 cannot express memory.swapMax without memory.max: it limits the sum of memory and swap (memory.memsw.limit_in_bytes)"`,
    );
  });

  test('a wrong one changes nothing', async () => {
    const group = await makeGroup({ memory: '64M' });
    const wrong = { memory: '128M', pids: -1 } as CgroupLimits;
    await expect(group.update(wrong)).rejects.toThrow(TypeError);
    expect((await group.limits()).memory?.max).toBe(64 * MiB);
  });

  test('of a group that is gone', async () => {
    const group = await makeGroup();
    await group.delete();
    expect(await refusal(group.update({ memory: 'max' }))).toMatchObject({ code: 'ERR_CLOISTER_DISPOSED' });
    expect(await refusal(group.limits())).toMatchObject({ code: 'ERR_CLOISTER_DISPOSED' });
  });
});
