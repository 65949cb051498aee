// Huge pages, RDMA devices, and miscellaneous resources: cgroup-v2.rst.
import { readdirSync, readFileSync } from 'node:fs';
import { Cgroup } from 'cloister';
import { describe, expect, test } from 'vitest';
import { askIn, makeGroup } from '../helpers/cgroups.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { refusal } from './refusals.js';

const MiB = 2 ** 20;
const pages = { size: '2MB', argument: 2 * MiB } as const;

describeNeeding(['controller:hugetlb'])('huge pages', () => {
  const touch = async (limit: number | 'max', count: number) => {
    const group = await makeGroup({ hugetlb: { [pages.size]: limit } });
    const [ending] = await askIn(group, [['huge-pages', count * pages.argument, pages.argument]]);
    return { signal: ending.signal, refused: (await group.stats()).hugetlb?.[pages.size]?.maxEvents };
  };

  test('beyond the limit are refused, also where there are none', async () => {
    const { signal, refused } = await touch(0, 1);
    expect(signal).toBe('SIGBUS');
    expect(refused).toBeGreaterThanOrEqual(1);
  });

  test('are not counted as refused without a limit', async () => {
    expect((await touch('max', 1)).refused).toBe(0);
  });

  testNeeding(['huge-pages'])('are held to the limit', async () => {
    expect(await touch(pages.argument, 1)).toEqual({ signal: null, refused: 0 });
    expect(await touch(pages.argument, 2)).toMatchObject({ signal: 'SIGBUS', refused: expect.any(Number) });
    expect(await touch(2 * pages.argument, 2)).toEqual({ signal: null, refused: 0 });
  });

  test('are read back by their size', async () => {
    const group = await makeGroup({ hugetlb: { '2MB': '4M' } });
    expect((await group.limits()).hugetlb).toMatchObject({ '2MB': 4 * MiB });
    await group.update({ hugetlb: { '2MB': 'max' } });
    expect((await group.limits()).hugetlb).toMatchObject({ '2MB': Infinity });
    expect((await group.stats()).hugetlb).toMatchObject({ '2MB': { currentBytes: 0, maxEvents: 0 } });
  });

  test('of a size that this machine has not', async () => {
    const error = await refusal(makeGroup({ hugetlb: { '3MB': 0 } }));
    expect(error).toMatchObject({ name: 'CgroupError' });
    expect(error.message).toContain('hugetlb.3MB.max');
  });
});

describeNeeding(['controller:rdma'])('RDMA', () => {
  const [device] = readdirOrNone('/sys/class/infiniband');

  test.skipIf(device === undefined)('limits of a device are set, read back and lifted', async () => {
    const name = device as string;
    const group = await makeGroup({ rdma: { [name]: { handles: 2, objects: 100 } } });
    expect((await group.limits()).rdma).toMatchObject({ [name]: { handles: 2, objects: 100 } });
    await group.update({ rdma: { [name]: { objects: 'max' } } });
    expect((await group.limits()).rdma).toMatchObject({ [name]: { handles: 2, objects: Infinity } });
  });

  test('of a device that is not there', async () => {
    expect(await refusal(makeGroup({ rdma: { none_0: { handles: 1 } } }))).toMatchObject({ name: 'CgroupError', errnoName: 'ENODEV' });
  });
});

describeNeeding(['controller:misc'])('miscellaneous resources', () => {
  const capacity = readOrNone('/sys/fs/cgroup/misc.capacity').split('\n').filter(Boolean);
  const resource = capacity[0]?.split(' ')[0];

  test.skipIf(resource === undefined)('limits are set, read back and lifted', async () => {
    const name = resource as string;
    const group = await makeGroup({ misc: { [name]: 1 } });
    expect((await group.limits()).misc).toMatchObject({ [name]: 1 });
    await group.update({ misc: { [name]: 'max' } });
    expect((await group.limits()).misc).toMatchObject({ [name]: Infinity });
  });

  test('of a resource that this host has not', async () => {
    expect(await refusal(makeGroup({ misc: { no_such: 1 } }))).toMatchObject({ name: 'CgroupError' });
  });
});

describe('a controller that is in no hierarchy', () => {
  test('is refused by name, with what to do', async () => {
    const { controllers } = await Cgroup.support();
    const limits = {
      rdma: { mlx5_0: { handles: 1 } },
      misc: { sev: 1 },
      network: { classId: 1 },
      hugetlb: { '2MB': 0 },
      io: [{ device: '1:1', readBps: 1 }],
    } as const;
    const names = { rdma: ['rdma'], misc: ['misc'], network: ['net_cls'], hugetlb: ['hugetlb'], io: ['io', 'blkio'] };
    for (const key of Object.keys(limits) as (keyof typeof limits)[]) {
      if (names[key].some((name) => name in controllers)) continue;
      const error = await refusal(makeGroup({ [key]: limits[key] }));
      expect(error).toMatchObject({ name: 'CgroupError', code: 'ERR_CLOISTER_CGROUP_UNSUPPORTED' });
      expect(error.message).toContain(key);
      expect(error.hint).toBeTruthy();
    }
  });
});

function readdirOrNone(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function readOrNone(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
