import * as check from '../../spawn/validate.js';
import { bytesOrMax, type Controller, cannotExpress, maxText, parseLimit, type Write } from './controller.js';

interface Memory {
  readonly max?: number;
  readonly high?: number;
  readonly low?: number;
  readonly min?: number;
  readonly swapMax?: number;
  readonly oomGroup?: boolean;
}

/** Documentation/admin-guide/cgroup-v2.rst, "Memory"; cgroup-v1/memory.rst. */
export const memory: Controller<'memory', Memory> = {
  key: 'memory',
  v1: 'memory',
  v2: 'memory',

  check(value, option) {
    if (typeof value !== 'object' || value === null) return { max: bytesOrMax(value, option) };
    check.onlyKeys(value, option, ['max', 'high', 'low', 'min', 'swapMax', 'oomGroup']);
    const result: { -readonly [K in keyof Memory]: Memory[K] } = {};
    const given = check.record(value, option);
    for (const key of ['max', 'high', 'low', 'min', 'swapMax'] as const) {
      if (given[key] !== undefined) result[key] = bytesOrMax(given[key], `${option}.${key}`);
    }
    if (given['oomGroup'] !== undefined) result.oomGroup = check.flag(given['oomGroup'], `${option}.oomGroup`);
    return result;
  },

  writes({ max, high, low, min, swapMax, oomGroup }, version, now) {
    if (version === 'v2') {
      const files = [
        // What protects first, and what throttles before what kills.
        ['memory.min', min],
        ['memory.low', low],
        ['memory.high', high],
        ['memory.swap.max', swapMax],
        ['memory.max', max],
      ] as const;
      const writes: Write[] = files.flatMap(([file, limit]) => (limit === undefined ? [] : [{ file, text: maxText(limit) }]));
      return oomGroup === undefined ? writes : [...writes, { file: 'memory.oom.group', text: oomGroup ? '1' : '0' }];
    }
    for (const [name, limit] of Object.entries({ high, low, min })) {
      if (limit !== undefined) throw cannotExpress(`memory.${name}`, version, 'it has a hard limit only (memory.limit_in_bytes)');
    }
    if (oomGroup) throw cannotExpress('memory.oomGroup', version, 'its OOM killer takes one process at a time');
    return limitsOfV1(max, swapMax, parseLimit(now('memory.limit_in_bytes')), parseLimit(now('memory.memsw.limit_in_bytes')));
  },

  limits(version, read) {
    const limit = (file: string): number => parseLimit(read(file));
    if (version === 'v1') {
      const max = limit('memory.limit_in_bytes');
      const both = read('memory.memsw.limit_in_bytes');
      const swap = both === undefined ? undefined : parseLimit(both) - max;
      return {
        max,
        high: Number.POSITIVE_INFINITY,
        low: 0,
        min: 0,
        ...(swap === undefined ? {} : { swapMax: Number.isNaN(swap) ? Number.POSITIVE_INFINITY : swap }),
      };
    }
    return {
      max: limit('memory.max'),
      high: limit('memory.high'),
      low: limit('memory.low'),
      min: limit('memory.min'),
      ...(read('memory.swap.max') === undefined ? {} : { swapMax: limit('memory.swap.max') }),
      oomGroup: read('memory.oom.group') === '1',
    };
  },
};

/** v1 limits memory, and memory with swap: the second is never below the first (mem_cgroup_resize_max), so the order matters. */
function limitsOfV1(max: number | undefined, swapMax: number | undefined, maxNow: number, bothNow: number): Write[] {
  const text = (number: number): string => (number === Number.POSITIVE_INFINITY ? '-1' : String(number));
  const swapNow = bothNow === Number.POSITIVE_INFINITY ? bothNow : bothNow - maxNow;
  const newMax = max ?? maxNow;
  const memory: Write[] = max === undefined ? [] : [{ file: 'memory.limit_in_bytes', text: text(max) }];
  const both = newMax + (swapMax ?? swapNow);
  if (swapMax === undefined && bothNow === Number.POSITIVE_INFINITY) return memory;
  if (swapMax !== undefined && swapMax !== Number.POSITIVE_INFINITY && newMax === Number.POSITIVE_INFINITY) {
    throw cannotExpress('memory.swapMax without memory.max', 'v1', 'it limits the sum of memory and swap (memory.memsw.limit_in_bytes)');
  }
  const sum: Write = { file: 'memory.memsw.limit_in_bytes', text: text(both) };
  return newMax > bothNow ? [sum, ...memory] : [...memory, sum];
}
