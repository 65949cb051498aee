import { nestedKeyed } from './controllers/controller.js';
import type { Version } from './hierarchies.js';
import type { Look, Places, Wanted } from './reading.js';
import type { CgroupStats, Pressure } from './types.js';

// The counters of a group, in v2's terms: microseconds and bytes. First where they are, then what they make: each of these functions looks
// up its places once and gives the one that is called for each sample. A sample each 10 ms is code that runs cold each time, so it is
// to be little: no name is looked up in it, no object is made to be copied into another.

const number = [''];
const resources = ['cpu', 'memory', 'io'] as const;
const pressureKeys = (kind: 'some' | 'full'): string[] => ['avg10', 'avg60', 'avg300', 'total'].map((key) => `${kind} ${key}`);

/** The directory itself, which is read as its number of links. */
export const links = '.';

type Files = Readonly<Record<string, readonly string[] | undefined>>;

/** What a group of v2 has, whatever its controllers: beside v1, too. */
const always: Files = {
  'cgroup.events': ['populated', 'frozen'],
  'cgroup.freeze': number,
  'cpu.stat': ['usage_usec', 'user_usec', 'system_usec', 'nr_periods', 'nr_throttled', 'throttled_usec'],
  ...Object.fromEntries(resources.map((resource) => [`${resource}.pressure`, [...pressureKeys('some'), ...pressureKeys('full')]])),
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
    ...(controllers.includes('hugetlb') ? hugePages : []).map((size) => hugePageFiles(version, size)),
  );
  const entries = Object.entries(all).filter(([file]) => only?.has(file) ?? true);
  return entries.map(([file, keys]) => ({ version, file, ...(keys ? { keys } : {}) }));
}

/** A counter of a sample: its name there, its place, and how many of the kernel's units make one of ours. `or`: what it is where there is none. */
interface Field {
  readonly name: string;
  readonly place: number;
  readonly per: number;
  readonly or: number;
}

type Made<T> = (look: Look) => T;

const field = (name: string, place: number, { per = 1, or = Number.NaN } = {}): Field => ({ name, place, per, or });
const counted = (name: string, place: number): Field => field(name, place, { or: 0 });

/** What is not there is not in it. */
function take<T>({ numbers }: Look, fields: readonly Field[]): T {
  const taken: Record<string, number> = {};
  for (const { name, place, per, or } of fields) {
    const number = numbers[place] as number;
    const value = Number.isNaN(number) ? or : number;
    if (!Number.isNaN(value)) taken[name] = per === 1 ? value : Math.round(value / per);
  }
  return taken as T;
}

/** Undefined where the first of them is not there. */
function group<T>(fields: readonly Field[]): Made<T | undefined> {
  const first = fields[0]?.place ?? 0;
  return (look) => (Number.isNaN(look.numbers[first]) ? undefined : take<T>(look, fields));
}

export function statsIn(at: Places, hugePages: readonly string[]): Made<CgroupStats> {
  const [cpu, memory, io, pids] = [cpuIn(at), memoryIn(at), ioIn(at), pidsIn(at)];
  const [hugetlb, pressure, freezer, populated] = [hugetlbIn(at, hugePages), pressuresIn(at), freezerIn(at), populatedIn(at)];
  return (look) => {
    const stats: Partial<CgroupStats> = {};
    const put = <K extends keyof CgroupStats>(key: K, value: CgroupStats[K] | undefined): void => {
      if (value !== undefined) stats[key] = value;
    };
    put('cpu', cpu(look));
    put('memory', memory(look));
    put('io', io(look));
    put('pids', pids(look));
    put('hugetlb', hugetlb(look));
    put('pressure', pressure(look));
    put('freezer', freezer(look));
    put('populated', populated(look));
    return stats as CgroupStats;
  };
}

/** On v1 alone: whether there is a first process. */
export function populatedIn(at: Places): Made<boolean> {
  const [events, first] = [at.number('v2', 'cgroup.events', 'populated'), at.number('v1', 'cgroup.procs')];
  return ({ numbers }) => {
    const populated = numbers[events];
    return Number.isNaN(populated) ? !Number.isNaN(numbers[first]) : populated === 1;
  };
}

function freezerIn(at: Places): Made<CgroupStats['freezer']> {
  const [asked, frozen, state] = [at.number('v2', 'cgroup.freeze'), at.number('v2', 'cgroup.events', 'frozen'), at.text('v1', 'freezer.state')];
  return ({ numbers, texts }) => {
    if (Number.isNaN(numbers[asked])) return (texts[state]?.trimEnd().toLowerCase() ?? 'thawed') as CgroupStats['freezer'];
    if (numbers[asked] === 0) return 'thawed';
    return numbers[frozen] === 1 ? 'frozen' : 'freezing';
  };
}

export function cpuIn(at: Places): Made<CgroupStats['cpu']> {
  const v2 = (key: string): number => at.number('v2', 'cpu.stat', key);
  const v1 = (key: string): number => at.number('v1', 'cpu.stat', key);
  const nanoseconds = (name: string, file: string): Field => field(name, at.number('v1', file), { per: 1000, or: 0 });
  const times = v2('usage_usec')
    ? [counted('usageUs', v2('usage_usec')), counted('userUs', v2('user_usec')), counted('systemUs', v2('system_usec'))]
    : [nanoseconds('usageUs', 'cpuacct.usage'), nanoseconds('userUs', 'cpuacct.usage_user'), nanoseconds('systemUs', 'cpuacct.usage_sys')];
  // The hybrid layout's v2 group has the times too, but no periods.
  const periods = v1('nr_periods')
    ? [field('periods', v1('nr_periods')), field('throttledPeriods', v1('nr_throttled')), field('throttledUs', v1('throttled_time'), { per: 1000, or: 0 })]
    : [field('periods', v2('nr_periods')), field('throttledPeriods', v2('nr_throttled')), field('throttledUs', v2('throttled_usec'))];
  return group([...times, ...periods]);
}

function memoryIn(at: Places): Made<CgroupStats['memory']> {
  return at.number('v2', 'memory.current') ? memoryInV2(at) : memoryInV1(at);
}

type Memory = NonNullable<CgroupStats['memory']>;

function memoryInV2(at: Places): Made<CgroupStats['memory']> {
  const stat = (key: string): number => at.number('v2', 'memory.stat', key);
  const bytes = group<Memory>([
    field('currentBytes', at.number('v2', 'memory.current')),
    field('peakBytes', at.number('v2', 'memory.peak')),
    field('swapBytes', at.number('v2', 'memory.swap.current')),
    counted('anonBytes', stat('anon')),
    counted('fileBytes', stat('file')),
    field('kernelBytes', stat('kernel')),
  ]);
  const names = { low: 'low', high: 'high', max: 'max', oom: 'oom', oomKill: 'oom_kill' };
  const events = Object.entries(names).map(([name, key]) => counted(name, at.number('v2', 'memory.events', key)));
  return (look) => {
    const memory = bytes(look);
    if (memory) memory.events = take(look, events);
    return memory;
  };
}

function memoryInV1(at: Places): Made<CgroupStats['memory']> {
  const bytes = group<Memory>([
    field('currentBytes', at.number('v1', 'memory.usage_in_bytes')),
    field('peakBytes', at.number('v1', 'memory.max_usage_in_bytes')),
    // Of both, memory and swap, until memory is taken from it.
    field('swapBytes', at.number('v1', 'memory.memsw.usage_in_bytes')),
    counted('anonBytes', at.number('v1', 'memory.stat', 'total_rss')),
    counted('fileBytes', at.number('v1', 'memory.stat', 'total_cache')),
    field('kernelBytes', at.number('v1', 'memory.kmem.usage_in_bytes')),
  ]);
  // It counts the kills, not the times that it came to one.
  const kills = at.number('v1', 'memory.oom_control', 'oom_kill');
  const events = [counted('max', at.number('v1', 'memory.failcnt')), counted('oom', kills), counted('oomKill', kills)];
  return (look) => {
    const memory = bytes(look);
    if (!memory) return undefined;
    if (memory.swapBytes !== undefined) memory.swapBytes = Math.max(0, memory.swapBytes - memory.currentBytes);
    memory.events = take(look, events);
    return memory;
  };
}

export function ioIn(at: Places): Made<CgroupStats['io']> {
  const [v2, bytes, operations] = [
    at.text('v2', 'io.stat'),
    ...['blkio.throttle.io_service_bytes_recursive', 'blkio.throttle.io_serviced_recursive'].map((file) => at.text('v1', file)),
  ] as [number, number, number];
  return ({ texts }) => (texts[v2] !== undefined ? ioOfV2(texts[v2]) : texts[bytes] !== undefined ? ioOfV1(texts[bytes], texts[operations] ?? '') : undefined);
}

function ioOfV2(text: string): CgroupStats['io'] {
  const entries = Object.entries(nestedKeyed(text)).map(([device, keys]) => {
    const key = (name: string): number => Number(keys[name] ?? 0);
    return [device, { readBytes: key('rbytes'), writeBytes: key('wbytes'), reads: key('rios'), writes: key('wios') }] as const;
  });
  return Object.fromEntries(entries);
}

function ioOfV1(bytes: string, operations: string): CgroupStats['io'] {
  const result: Record<string, { readBytes: number; writeBytes: number; reads: number; writes: number }> = {};
  const add = (text: string, read: 'readBytes' | 'reads', write: 'writeBytes' | 'writes'): void => {
    for (const line of text.split('\n')) {
      const [device, operation, value] = line.split(' ');
      if (device === undefined || value === undefined || !(operation === 'Read' || operation === 'Write')) continue;
      result[device] ??= { readBytes: 0, writeBytes: 0, reads: 0, writes: 0 };
      result[device][operation === 'Read' ? read : write] = Number(value);
    }
  };
  add(bytes, 'readBytes', 'writeBytes');
  add(operations, 'reads', 'writes');
  return result;
}

function pidsIn(at: Places): Made<CgroupStats['pids']> {
  const version = at.number('v2', 'pids.current') ? 'v2' : 'v1';
  return group([
    field('current', at.number(version, 'pids.current')),
    field('peak', at.number(version, 'pids.peak')),
    counted('maxEvents', at.number(version, 'pids.events', 'max')),
  ]);
}

function hugetlbIn(at: Places, sizes: readonly string[]): Made<CgroupStats['hugetlb']> {
  const pages = sizes.map((size) => {
    const isV2 = at.number('v2', `hugetlb.${size}.current`) > 0;
    const current = isV2 ? at.number('v2', `hugetlb.${size}.current`) : at.number('v1', `hugetlb.${size}.usage_in_bytes`);
    const events = isV2 ? at.number('v2', `hugetlb.${size}.events`, 'max') : at.number('v1', `hugetlb.${size}.failcnt`);
    return [size, group<{ currentBytes: number; maxEvents: number }>([field('currentBytes', current), counted('maxEvents', events)])] as const;
  });
  return (look) => {
    let result: Record<string, { currentBytes: number; maxEvents: number }> | undefined;
    for (const [size, both] of pages) {
      const counts = both(look);
      if (!counts) continue;
      result ??= {};
      result[size] = counts;
    }
    return result;
  };
}

/** Documentation/accounting/psi.rst. An idle kernel may have it switched off (psi=0): then there is none. */
function pressuresIn(at: Places): Made<CgroupStats['pressure']> {
  const of = (resource: (typeof resources)[number], kind: 'some' | 'full'): Made<Pressure | undefined> => {
    const place = (key: string): number => at.number('v2', `${resource}.pressure`, `${kind} ${key}`);
    return group([...['avg10', 'avg60', 'avg300'].map((key) => counted(key, place(key))), counted('totalUs', place('total'))]);
  };
  const all = resources.map((resource) => [resource, of(resource, 'some'), of(resource, 'full')] as const);
  return (look) => {
    let result: CgroupStats['pressure'];
    for (const [resource, some, full] of all) {
      const stalled = some(look);
      if (!stalled) continue;
      const pressures: { some: Pressure; full?: Pressure } = { some: stalled };
      const whole = full(look);
      if (whole) pressures.full = whole;
      result ??= {};
      result[resource] = pressures;
    }
    return result;
  };
}
