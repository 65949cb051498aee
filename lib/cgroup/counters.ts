import { nestedKeyed } from './controllers/controller.js';
import type { Version } from './hierarchies.js';
import type { Look, Wanted } from './look.js';
import type { CgroupStats, Pressure } from './types.js';

// The counters of a group, in v2's terms: microseconds and bytes. First where they are, then what they make.

const number = [''];
const resources = ['cpu', 'memory', 'io'] as const;
// Names that are made once: a look at them is then a look into two maps, and no text is put together for each sample.
const pressureKeys = {
  some: ['some avg10', 'some avg60', 'some avg300', 'some total'],
  full: ['full avg10', 'full avg60', 'full avg300', 'full total'],
} as const;
const pressureFiles = { cpu: 'cpu.pressure', memory: 'memory.pressure', io: 'io.pressure' } as const;

/** The directory itself, which is read as its number of links. */
export const links = '.';

type Files = Readonly<Record<string, readonly string[] | undefined>>;

/** What a group of v2 has, whatever its controllers: beside v1, too. */
const always: Files = {
  'cgroup.events': ['populated', 'frozen'],
  'cgroup.freeze': number,
  'cpu.stat': ['usage_usec', 'user_usec', 'system_usec', 'nr_periods', 'nr_throttled', 'throttled_usec'],
  ...Object.fromEntries(resources.map((resource) => [pressureFiles[resource], [...pressureKeys.some, ...pressureKeys.full]])),
};

/** The files of each controller, v2's and v1's. A kernel that is without one of them is without what it says. */
const files: Readonly<Record<string, Readonly<Partial<Record<Version, Files>>>>> = {
  memory: {
    v2: {
      'memory.current': number,
      'memory.peak': number,
      'memory.swap.current': number,
      'memory.stat': ['anon', 'file', 'kernel'],
      'memory.events': ['low', 'high', 'max', 'oom', 'oom_kill'],
    },
    v1: {
      'memory.usage_in_bytes': number,
      'memory.max_usage_in_bytes': number,
      'memory.memsw.usage_in_bytes': number,
      'memory.kmem.usage_in_bytes': number,
      'memory.stat': ['total_rss', 'total_cache'],
      'memory.oom_control': ['oom_kill'],
      'memory.failcnt': number,
      [links]: number,
    },
  },
  cpu: { v1: { 'cpu.stat': ['nr_periods', 'nr_throttled', 'throttled_time'] } },
  cpuacct: { v1: { 'cpuacct.usage': number, 'cpuacct.usage_user': number, 'cpuacct.usage_sys': number } },
  io: { v2: { 'io.stat': undefined } },
  blkio: { v1: { 'blkio.throttle.io_service_bytes_recursive': undefined, 'blkio.throttle.io_serviced_recursive': undefined } },
  pids: {
    v2: { 'pids.current': number, 'pids.peak': number, 'pids.events': ['max'] },
    v1: { 'pids.current': number, 'pids.peak': number, 'pids.events': ['max'] },
  },
  freezer: { v1: { 'freezer.state': undefined } },
};

const hugePageFiles = (version: Version, size: string): Files =>
  version === 'v2'
    ? { [`hugetlb.${size}.current`]: number, [`hugetlb.${size}.events`]: ['max'] }
    : { [`hugetlb.${size}.usage_in_bytes`]: number, [`hugetlb.${size}.failcnt`]: number };

/** All that a group with these controllers tells. `only`: those of its files. */
export function wantedOf(version: Version, controllers: readonly string[], hugePages: readonly string[], only?: ReadonlySet<string>): Wanted[] {
  const all: Files = Object.assign(
    {},
    version === 'v2' ? always : { 'cgroup.procs': number },
    ...controllers.map((controller) => files[controller]?.[version] ?? {}),
    ...hugePages.map((size) => hugePageFiles(version, size)),
  );
  const entries = Object.entries(all).filter(([file]) => only?.has(file) ?? true);
  return entries.map(([file, keys]) => ({ version, file, ...(keys ? { keys } : {}) }));
}

export function statsOf(at: Look, hugePages: readonly string[]): CgroupStats {
  const frozen = at.number('v2', 'cgroup.freeze');
  return {
    ...optional('cpu', cpuOf(at)),
    ...optional('memory', memoryOf(at)),
    ...optional('io', ioOf(at)),
    ...optional('pids', pidsOf(at)),
    ...optional('hugetlb', hugetlbOf(at, hugePages)),
    ...optional('pressure', pressuresOf(at)),
    freezer:
      frozen === undefined
        ? ((at.text('v1', 'freezer.state') ?? 'THAWED').toLowerCase() as CgroupStats['freezer'])
        : frozen === 0
          ? 'thawed'
          : at.number('v2', 'cgroup.events', 'frozen') === 1
            ? 'frozen'
            : 'freezing',
    populated: isPopulated(at),
  };
}

const optional = <K extends string, T>(key: K, value: T | undefined): { [P in K]?: T } => (value === undefined ? {} : { [key]: value }) as { [P in K]?: T };

/** On v1 alone: whether there is a first process. */
export function isPopulated(at: Look): boolean {
  const populated = at.number('v2', 'cgroup.events', 'populated');
  return populated === undefined ? at.number('v1', 'cgroup.procs') !== undefined : populated === 1;
}

export function cpuOf(at: Look): CgroupStats['cpu'] {
  const v2 = (key: string): number | undefined => at.number('v2', 'cpu.stat', key);
  const v1 = (key: string): number | undefined => at.number('v1', 'cpu.stat', key);
  // Nanoseconds; the hybrid layout's v2 group has the times too, but no periods.
  const microseconds = (file: string): number => Math.round((at.number('v1', file) ?? 0) / 1000);
  const usage = v2('usage_usec');
  if (usage === undefined && at.number('v1', 'cpuacct.usage') === undefined) return undefined;
  const times =
    usage !== undefined
      ? { usageUs: usage, userUs: v2('user_usec') ?? 0, systemUs: v2('system_usec') ?? 0 }
      : { usageUs: microseconds('cpuacct.usage'), userUs: microseconds('cpuacct.usage_user'), systemUs: microseconds('cpuacct.usage_sys') };
  const isV1 = v1('nr_periods') !== undefined;
  const periods = isV1 ? v1 : v2;
  return {
    ...times,
    ...optional('periods', periods('nr_periods')),
    ...optional('throttledPeriods', periods('nr_throttled')),
    ...optional('throttledUs', isV1 ? Math.round((v1('throttled_time') ?? 0) / 1000) : v2('throttled_usec')),
  };
}

function memoryOf(at: Look): CgroupStats['memory'] {
  const current = at.number('v2', 'memory.current');
  if (current !== undefined) {
    const events = (key: string): number => at.number('v2', 'memory.events', key) ?? 0;
    return {
      currentBytes: current,
      ...optional('peakBytes', at.number('v2', 'memory.peak')),
      ...optional('swapBytes', at.number('v2', 'memory.swap.current')),
      anonBytes: at.number('v2', 'memory.stat', 'anon') ?? 0,
      fileBytes: at.number('v2', 'memory.stat', 'file') ?? 0,
      ...optional('kernelBytes', at.number('v2', 'memory.stat', 'kernel')),
      events: { low: events('low'), high: events('high'), max: events('max'), oom: events('oom'), oomKill: events('oom_kill') },
    };
  }
  const usage = at.number('v1', 'memory.usage_in_bytes');
  if (usage === undefined) return undefined;
  const both = at.number('v1', 'memory.memsw.usage_in_bytes');
  const kills = at.number('v1', 'memory.oom_control', 'oom_kill') ?? 0;
  return {
    currentBytes: usage,
    ...optional('peakBytes', at.number('v1', 'memory.max_usage_in_bytes')),
    ...optional('swapBytes', both === undefined ? undefined : Math.max(0, both - usage)),
    anonBytes: at.number('v1', 'memory.stat', 'total_rss') ?? 0,
    fileBytes: at.number('v1', 'memory.stat', 'total_cache') ?? 0,
    ...optional('kernelBytes', at.number('v1', 'memory.kmem.usage_in_bytes')),
    // It counts the kills, not the times that it came to one.
    events: { max: at.number('v1', 'memory.failcnt') ?? 0, oom: kills, oomKill: kills },
  };
}

export function ioOf(at: Look): CgroupStats['io'] {
  const v2 = at.text('v2', 'io.stat');
  if (v2 !== undefined) {
    const entries = Object.entries(nestedKeyed(v2)).map(([device, keys]) => {
      const key = (name: string): number => Number(keys[name] ?? 0);
      return [device, { readBytes: key('rbytes'), writeBytes: key('wbytes'), reads: key('rios'), writes: key('wios') }] as const;
    });
    return Object.fromEntries(entries);
  }
  const bytes = at.text('v1', 'blkio.throttle.io_service_bytes_recursive');
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
  add(at.text('v1', 'blkio.throttle.io_serviced_recursive'), 'reads', 'writes');
  return result;
}

function pidsOf(at: Look): CgroupStats['pids'] {
  const version = at.number('v2', 'pids.current') === undefined ? 'v1' : 'v2';
  const current = at.number(version, 'pids.current');
  if (current === undefined) return undefined;
  return { current, ...optional('peak', at.number(version, 'pids.peak')), maxEvents: at.number(version, 'pids.events', 'max') ?? 0 };
}

function hugetlbOf(at: Look, sizes: readonly string[]): CgroupStats['hugetlb'] {
  if (sizes.length === 0) return undefined;
  const entries = sizes.map((size) => {
    const v2 = at.number('v2', `hugetlb.${size}.current`);
    const maxEvents = v2 === undefined ? at.number('v1', `hugetlb.${size}.failcnt`) : at.number('v2', `hugetlb.${size}.events`, 'max');
    return [size, { currentBytes: v2 ?? at.number('v1', `hugetlb.${size}.usage_in_bytes`) ?? 0, maxEvents: maxEvents ?? 0 }] as const;
  });
  return Object.fromEntries(entries);
}

/** Documentation/accounting/psi.rst. An idle kernel may have it switched off (psi=0): then there is none. */
function pressuresOf(at: Look): CgroupStats['pressure'] {
  const result: NonNullable<CgroupStats['pressure']> = {};
  for (const resource of resources) {
    const some = pressureOf(at, resource, 'some');
    const full = pressureOf(at, resource, 'full');
    if (some) result[resource] = { some, ...(full ? { full } : {}) };
  }
  return Object.keys(result).length === 0 ? undefined : result;
}

function pressureOf(at: Look, resource: (typeof resources)[number], kind: 'some' | 'full'): Pressure | undefined {
  const [avg10, avg60, avg300, total] = pressureKeys[kind].map((key) => at.number('v2', pressureFiles[resource], key));
  return avg10 === undefined ? undefined : { avg10, avg60: avg60 ?? 0, avg300: avg300 ?? 0, totalUs: total ?? 0 };
}
