import { statSync } from 'node:fs';
import { optionError } from '../../errors.js';
import * as check from '../../spawn/validate.js';
import { bytesOrMax, type Controller, cannotExpress, countOrMax, maxText, nestedKeyed, parseLimit, type Write } from './controller.js';

interface Device {
  /** MAJOR:MINOR */
  readonly device: string;
  readonly rates: Readonly<Partial<Record<Rate, number>>>;
  readonly weight?: number;
}

type Rate = 'readBps' | 'writeBps' | 'readIops' | 'writeIops';
const rates: Readonly<Record<Rate, { readonly v1: string; readonly v2: string }>> = {
  readBps: { v1: 'blkio.throttle.read_bps_device', v2: 'rbps' },
  writeBps: { v1: 'blkio.throttle.write_bps_device', v2: 'wbps' },
  readIops: { v1: 'blkio.throttle.read_iops_device', v2: 'riops' },
  writeIops: { v1: 'blkio.throttle.write_iops_device', v2: 'wiops' },
};

/** cgroup-v2.rst, "IO"; cgroup-v1/blkio-controller.rst, "Throttling". On v1 what is written through the page cache is nobody's. */
export const io: Controller<'io', readonly Device[]> = {
  key: 'io',
  v1: 'blkio',
  v2: 'io',

  check: (value, option) =>
    check.list(value, option, (entry, name) => {
      const given = check.record(entry, name);
      check.onlyKeys(given, name, ['device', ...Object.keys(rates), 'weight']);
      const limits: Partial<Record<Rate, number>> = {};
      for (const rate of Object.keys(rates) as Rate[]) {
        if (given[rate] === undefined) continue;
        limits[rate] = rate.endsWith('Bps') ? bytesOrMax(given[rate], `${name}.${rate}`) : countOrMax(given[rate], `${name}.${rate}`, 1);
        // v1 takes 0 for no limit, v2 refuses it.
        if (limits[rate] === 0) throw optionError(`${name}.${rate}`, 'at least one byte a second', given[rate]);
      }
      return {
        device: deviceOf(given['device'], `${name}.device`),
        rates: limits,
        ...(given['weight'] === undefined ? {} : { weight: check.integer(given['weight'], `${name}.weight`, 1, 10_000) }),
      };
    }),

  writes: (devices, version) =>
    devices.flatMap(({ device, rates: limits, weight }) => {
      const entries = Object.entries(limits) as [Rate, number][];
      // tg_set_limit in block/blk-throttle.c, `val > 1`.
      const least = version === 'v2' ? entries.find(([, limit]) => limit < 2) : undefined;
      if (least) throw cannotExpress(`io ${least[0]} of ${least[1]}`, version, 'the least is 2');
      const writes: Write[] =
        version === 'v2'
          ? entries.length === 0
            ? []
            : [{ file: 'io.max', text: `${device} ${entries.map(([rate, limit]) => `${rates[rate].v2}=${maxText(limit)}`).join(' ')}` }]
          : entries.map(([rate, limit]) => ({ file: rates[rate].v1, text: `${device} ${limit === Number.POSITIVE_INFINITY ? 0 : limit}` }));
      if (weight !== undefined) {
        // BFQ's weights end at 1,000; io.weight is blk-iocost's.
        writes.push(
          version === 'v2'
            ? { file: 'io.weight', text: `${device} ${weight}`, otherwise: 'io.bfq.weight' }
            : { file: 'blkio.bfq.weight_device', text: `${device} ${Math.min(weight, 1000)}`, otherwise: 'blkio.weight_device' },
        );
      }
      return writes;
    }),

  limits(version, read) {
    const found = new Map<string, { device: string } & Record<Rate, number> & { weight?: number }>();
    const at = (device: string) => {
      const none = Number.POSITIVE_INFINITY;
      const entry = found.get(device) ?? { device, readBps: none, writeBps: none, readIops: none, writeIops: none };
      found.set(device, entry);
      return entry;
    };
    const names = Object.keys(rates) as Rate[];
    if (version === 'v2') {
      for (const [device, limits] of Object.entries(nestedKeyed(read('io.max')))) {
        for (const rate of names) at(device)[rate] = parseLimit(limits[rates[rate].v2]);
      }
    } else {
      for (const rate of names) for (const [device, limit] of lines(read(rates[rate].v1))) at(device)[rate] = limit;
    }
    const weights = version === 'v2' ? (read('io.weight') ?? read('io.bfq.weight')) : (read('blkio.bfq.weight_device') ?? read('blkio.weight_device'));
    for (const [device, weight] of lines(weights)) if (device !== 'default') at(device).weight = weight;
    return [...found.values()];
  },
};

/** Of `MAJOR:MINOR value`. */
const lines = (text: string | undefined): [string, number][] =>
  (text ?? '').split('\n').flatMap((line) => {
    const [device, value] = line.split(' ');
    return device && value ? [[device, Number(value)]] : [];
  });

function deviceOf(value: unknown, option: string): string {
  const takes = "a block device: 'MAJOR:MINOR' or its path, such as '/dev/vda'";
  if (typeof value !== 'string') throw optionError(option, takes, value);
  if (/^\d+:\d+$/.test(value)) return value;
  const stats = value.startsWith('/') ? statSync(value, { throwIfNoEntry: false }) : undefined;
  if (!stats?.isBlockDevice()) throw optionError(option, takes, value);
  // makedev(3)
  const device = BigInt(stats.rdev);
  return `${((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)}:${(device & 0xffn) | ((device >> 12n) & 0xffffff00n)}`;
}
