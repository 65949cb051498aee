import { flatKeyed, nestedKeyed, parseLimit } from './controllers/controller.js';
import type { Version } from './hierarchies.js';
import type { CgroupStats, Pressure } from './types.js';

// The counters of a group out of the texts of its files, in v2's terms: microseconds and bytes.

/** A file that has been read; undefined: this group has no such. */
export type Look = (version: Version, file: string) => string | undefined;

export function statsOf(at: Look, hugePages: readonly string[]): CgroupStats {
  const events = at('v2', 'cgroup.events');
  const frozen = at('v2', 'cgroup.freeze');
  return {
    ...optional('cpu', cpuOf(at)),
    ...optional('memory', memoryOf(at)),
    ...optional('io', ioOf(at)),
    ...optional('pids', pidsOf(at)),
    ...optional('hugetlb', hugetlbOf(at, hugePages)),
    ...optional('pressure', pressuresOf(at)),
    freezer:
      frozen === undefined
        ? ((at('v1', 'freezer.state') ?? 'THAWED').toLowerCase() as CgroupStats['freezer'])
        : frozen === '0'
          ? 'thawed'
          : events?.includes('frozen 1')
            ? 'frozen'
            : 'freezing',
    populated: events === undefined ? (at('v1', 'cgroup.procs') ?? '') !== '' : events.includes('populated 1'),
  };
}

const optional = <K extends string, T>(key: K, value: T | undefined): { [P in K]?: T } => (value === undefined ? {} : { [key]: value }) as { [P in K]?: T };
export const numberAt = (at: Look, version: Version, file: string): number | undefined => {
  const text = at(version, file);
  return text === undefined ? undefined : Number(text);
};

export function cpuOf(at: Look): CgroupStats['cpu'] {
  const v2 = flatKeyed(at('v2', 'cpu.stat'));
  // Nanoseconds; the hybrid layout's v2 group has the times too, but no periods.
  const v1 = flatKeyed(at('v1', 'cpu.stat'));
  const [all, user, system] = ['cpuacct.usage', 'cpuacct.usage_user', 'cpuacct.usage_sys'].map((file) => numberAt(at, 'v1', file));
  const times =
    v2['usage_usec'] !== undefined
      ? { usageUs: v2['usage_usec'], userUs: v2['user_usec'] ?? 0, systemUs: v2['system_usec'] ?? 0 }
      : all !== undefined
        ? { usageUs: Math.round(all / 1000), userUs: Math.round((user ?? 0) / 1000), systemUs: Math.round((system ?? 0) / 1000) }
        : undefined;
  if (!times) return undefined;
  const throttled = v1['nr_periods'] !== undefined ? { ...v1, throttled_usec: Math.round((v1['throttled_time'] ?? 0) / 1000) } : v2;
  return {
    ...times,
    ...optional('periods', throttled['nr_periods']),
    ...optional('throttledPeriods', throttled['nr_throttled']),
    ...optional('throttledUs', throttled['throttled_usec']),
  };
}

function memoryOf(at: Look): CgroupStats['memory'] {
  const current = numberAt(at, 'v2', 'memory.current');
  if (current !== undefined) {
    const stat = flatKeyed(at('v2', 'memory.stat'));
    const events = flatKeyed(at('v2', 'memory.events'));
    return {
      currentBytes: current,
      ...optional('peakBytes', numberAt(at, 'v2', 'memory.peak')),
      ...optional('swapBytes', numberAt(at, 'v2', 'memory.swap.current')),
      anonBytes: stat['anon'] ?? 0,
      fileBytes: stat['file'] ?? 0,
      ...optional('kernelBytes', stat['kernel']),
      events: { low: events['low'] ?? 0, high: events['high'] ?? 0, max: events['max'] ?? 0, oom: events['oom'] ?? 0, oomKill: events['oom_kill'] ?? 0 },
    };
  }
  const usage = numberAt(at, 'v1', 'memory.usage_in_bytes');
  if (usage === undefined) return undefined;
  const stat = flatKeyed(at('v1', 'memory.stat'));
  const both = numberAt(at, 'v1', 'memory.memsw.usage_in_bytes');
  const kills = flatKeyed(at('v1', 'memory.oom_control'))['oom_kill'] ?? 0;
  return {
    currentBytes: usage,
    ...optional('peakBytes', numberAt(at, 'v1', 'memory.max_usage_in_bytes')),
    ...optional('swapBytes', both === undefined ? undefined : Math.max(0, both - usage)),
    anonBytes: stat['total_rss'] ?? 0,
    fileBytes: stat['total_cache'] ?? 0,
    ...optional('kernelBytes', numberAt(at, 'v1', 'memory.kmem.usage_in_bytes')),
    // It counts the kills, not the times that it came to one.
    events: { max: numberAt(at, 'v1', 'memory.failcnt') ?? 0, oom: kills, oomKill: kills },
  };
}

export function ioOf(at: Look): CgroupStats['io'] {
  const v2 = at('v2', 'io.stat');
  if (v2 !== undefined) {
    const entries = Object.entries(nestedKeyed(v2)).map(([device, keys]) => {
      const key = (name: string): number => Number(keys[name] ?? 0);
      return [device, { readBytes: key('rbytes'), writeBytes: key('wbytes'), reads: key('rios'), writes: key('wios') }] as const;
    });
    return Object.fromEntries(entries);
  }
  const bytes = at('v1', 'blkio.throttle.io_service_bytes_recursive');
  if (bytes === undefined) return undefined;
  const result: Record<string, { readBytes: number; writeBytes: number; reads: number; writes: number }> = {};
  const add = (text: string | undefined, read: 'readBytes' | 'reads', write: 'writeBytes' | 'writes'): void => {
    for (const line of (text ?? '').split('\n')) {
      const [device, operation, value] = line.split(' ');
      if (device === undefined || value === undefined || !(operation === 'Read' || operation === 'Write')) continue;
      result[device] ??= { readBytes: 0, writeBytes: 0, reads: 0, writes: 0 };
      result[device][operation === 'Read' ? read : write] = Number(value);
    }
  };
  add(bytes, 'readBytes', 'writeBytes');
  add(at('v1', 'blkio.throttle.io_serviced_recursive'), 'reads', 'writes');
  return result;
}

function pidsOf(at: Look): CgroupStats['pids'] {
  const version = at('v2', 'pids.current') === undefined ? 'v1' : 'v2';
  const current = numberAt(at, version, 'pids.current');
  if (current === undefined) return undefined;
  return { current, ...optional('peak', numberAt(at, version, 'pids.peak')), maxEvents: flatKeyed(at(version, 'pids.events'))['max'] ?? 0 };
}

function hugetlbOf(at: Look, sizes: readonly string[]): CgroupStats['hugetlb'] {
  if (sizes.length === 0) return undefined;
  const entries = sizes.map((size) => {
    const v2 = numberAt(at, 'v2', `hugetlb.${size}.current`);
    const maxEvents = v2 === undefined ? numberAt(at, 'v1', `hugetlb.${size}.failcnt`) : flatKeyed(at('v2', `hugetlb.${size}.events`))['max'];
    return [size, { currentBytes: v2 ?? numberAt(at, 'v1', `hugetlb.${size}.usage_in_bytes`) ?? 0, maxEvents: maxEvents ?? 0 }] as const;
  });
  return Object.fromEntries(entries);
}

/** Documentation/accounting/psi.rst. An idle kernel may have it switched off (psi=0): then there is none. */
function pressuresOf(at: Look): CgroupStats['pressure'] {
  const result: NonNullable<CgroupStats['pressure']> = {};
  for (const resource of ['cpu', 'memory', 'io'] as const) {
    const lines = nestedKeyed(at('v2', `${resource}.pressure`));
    const some = lines['some'] && pressureOf(lines['some']);
    if (some) result[resource] = { some, ...(lines['full'] ? { full: pressureOf(lines['full']) } : {}) };
  }
  return Object.keys(result).length === 0 ? undefined : result;
}

const pressureOf = (keys: Record<string, string>): Pressure => ({
  avg10: Number(keys['avg10']),
  avg60: Number(keys['avg60']),
  avg300: Number(keys['avg300']),
  totalUs: parseLimit(keys['total']),
});
