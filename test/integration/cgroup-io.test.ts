// Block devices: cgroup-v2.rst, "IO"; cgroup-v1/blkio-controller.rst. Direct I/O, so that what is counted is what was asked for.
import type { CgroupLimits } from 'cloister';
import { expect, test } from 'vitest';
import { askIn, makeGroup } from '../helpers/cgroups.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { scratchDisk } from '../helpers/scratch-disk.js';
import { saying } from './refusals.js';

const MiB = 2 ** 20;
type Limit = Omit<NonNullable<CgroupLimits['io']>[number], 'device'>;

/** Seconds that it takes to move so many bytes, in pieces, under this limit. */
async function seconds(limit: Limit, way: 'read' | 'write', total: number, piece: number): Promise<number> {
  const { path, number } = scratchDisk();
  const group = await makeGroup({ io: [{ device: number, ...limit }] });
  const [answer] = await askIn(group, [['direct', way, path, total, piece]]);
  expect(answer).toMatchObject({ errno: null, bytes: total });
  const io = (await group.stats()).io?.[number];
  expect(io?.[way === 'read' ? 'readBytes' : 'writeBytes']).toBeGreaterThanOrEqual(total);
  expect(io?.[way === 'read' ? 'reads' : 'writes']).toBeGreaterThanOrEqual(total / piece);
  return (answer.us ?? Number.NaN) / 1e6;
}

const about = (value: number, expected: number) => {
  expect(value).toBeGreaterThan(expected * 0.85);
  expect(value).toBeLessThan(expected * 1.15);
};

describeNeeding(['controller:io', 'scratch-disk'])('a limit of', () => {
  test('bytes read a second', async () => about(await seconds({ readBps: '4M' }, 'read', 8 * MiB, 64 * 1024), 2));
  test('bytes written a second', async () => about(await seconds({ writeBps: 4 * MiB }, 'write', 8 * MiB, 64 * 1024), 2));
  test('reads a second', async () => about(await seconds({ readIops: 100 }, 'read', 200 * 4096, 4096), 2));
  test('writes a second', async () => about(await seconds({ writeIops: 100 }, 'write', 200 * 4096, 4096), 2));

  test('one way leaves the other alone', async () => {
    expect(await seconds({ readBps: 64 * 1024 }, 'write', 4 * MiB, 64 * 1024)).toBeLessThan(2);
    expect(await seconds({ writeIops: 2 }, 'read', 4 * MiB, 64 * 1024)).toBeLessThan(2);
  });

  test('a device by its path', async () => {
    const { path, number } = scratchDisk();
    const group = await makeGroup({ io: [{ device: path, readBps: '8M', writeIops: 10 }] });
    expect((await group.limits()).io).toEqual([
      expect.objectContaining({ device: number, readBps: 8 * MiB, writeIops: 10, readIops: Infinity, writeBps: Infinity }),
    ]);
  });

  test('can be raised, lowered and lifted while it is in force', async () => {
    const { path, number } = scratchDisk();
    const group = await makeGroup({ io: [{ device: number, readBps: 64 * 1024 }] });
    const readBps = async () => (await group.limits()).io?.find(({ device }) => device === number)?.readBps ?? Infinity;
    expect(await readBps()).toBe(64 * 1024);
    await group.update({ io: [{ device: number, readBps: '1M' }] });
    expect(await readBps()).toBe(MiB);
    await group.update({ io: [{ device: number, readBps: 'max' }] });
    expect(await readBps()).toBe(Infinity);
    const [answer] = await askIn(group, [['direct', 'read', path, '16M', '64K']]);
    expect((answer.us ?? Number.NaN) / 1e6).toBeLessThan(4);
  });

  test('what is not named stays', async () => {
    const { number } = scratchDisk();
    const group = await makeGroup({ io: [{ device: number, readBps: '1M', writeBps: '2M' }] });
    await group.update({ io: [{ device: number, readBps: '3M' }] });
    expect((await group.limits()).io?.find(({ device }) => device === number)).toMatchObject({ readBps: 3 * MiB, writeBps: 2 * MiB });
  });
});

testNeeding(['controller:io'])('a device that is not there', async () => {
  const text = await saying(makeGroup({ io: [{ device: '4095:7', readBps: 4096 }] }));
  expect(text).toMatch(/^ENODEV: /);
  expect(text).toContain('4095:7');
});

testNeeding(['controller:io', 'cgroup-v1', 'scratch-disk'])('a weight needs a scheduler that knows weights', async () => {
  // v1 has them with BFQ alone, which nobody has chosen for a device that was made just now.
  const { number } = scratchDisk();
  const text = await saying(makeGroup({ io: [{ device: number, weight: 50 }] }));
  expect(text.replaceAll(number, 'DISK').replace(/ \/\S+\//, ' GROUP/')).toMatchInlineSnapshot(`
    "ENOTSUP: set blkio.bfq.weight_device to DISK 50 GROUP/blkio.bfq.weight_device (write): the scheduler of DISK knows no weights
      BFQ does: echo bfq > /sys/block/NAME/queue/scheduler (as root; the module may be missing)."
  `);
});
