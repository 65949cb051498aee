import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../native.js';
import { flatKeyed, nestedKeyed, parseLimit } from './controllers/controller.js';
import { hugePageSizes } from './controllers/hugetlb.js';
import type { Version } from './hierarchies.js';
import { type Place, readerOf } from './places.js';
import type { CgroupStats, Pressure } from './types.js';

const always = ['cgroup.events', 'cgroup.freeze', 'cpu.stat', 'cpu.pressure', 'memory.pressure', 'io.pressure'];

/** The directory itself, which is read as its number of links. */
const links = '.';

/** The files of each controller, v2's and v1's. A kernel that is without one of them is without what it says. */
const files: Readonly<Record<string, Readonly<Partial<Record<Version, readonly string[]>>>>> = {
  memory: {
    v2: ['memory.current', 'memory.peak', 'memory.swap.current', 'memory.stat', 'memory.events'],
    v1: [
      'memory.usage_in_bytes',
      'memory.max_usage_in_bytes',
      'memory.memsw.usage_in_bytes',
      'memory.kmem.usage_in_bytes',
      'memory.stat',
      'memory.oom_control',
      'memory.failcnt',
      links,
    ],
  },
  cpu: { v1: ['cpu.stat'] },
  cpuacct: { v1: ['cpuacct.usage', 'cpuacct.usage_user', 'cpuacct.usage_sys'] },
  io: { v2: ['io.stat'] },
  blkio: { v1: ['blkio.throttle.io_service_bytes_recursive', 'blkio.throttle.io_serviced_recursive'] },
  pids: { v2: ['pids.current', 'pids.peak', 'pids.events'], v1: ['pids.current', 'pids.peak', 'pids.events'] },
  freezer: { v1: ['freezer.state'] },
};

const keyOf = (version: Version, file: string): string => `${version}:${file}`;

/** The files that tell of a group, held open for as long as it is: one call then reads them all. */
export class StatFiles {
  readonly #keys: string[] = [];
  readonly #fds: number[] = [];
  readonly #places: readonly Place[];
  readonly #sizes: readonly string[];
  #reading = 0;
  #closed = false;

  constructor(places: readonly Place[]) {
    this.#places = places;
    const sizes: string[] = [];
    for (const { hierarchy, directory, controllers } of places) {
      const { version } = hierarchy;
      const names = [...(version === 'v2' ? always : ['cgroup.procs']), ...controllers.flatMap((controller) => files[controller]?.[version] ?? [])];
      if (controllers.includes('hugetlb')) {
        const found = hugePageSizes(readerOf(directory));
        sizes.push(...found);
        for (const size of found) {
          names.push(
            ...(version === 'v2' ? [`hugetlb.${size}.current`, `hugetlb.${size}.events`] : [`hugetlb.${size}.usage_in_bytes`, `hugetlb.${size}.failcnt`]),
          );
        }
      }
      for (const file of new Set(names)) {
        const fd = native().openFile(join(directory, file));
        if (fd < 0) continue;
        this.#keys.push(keyOf(version, file));
        this.#fds.push(fd);
      }
    }
    this.#sizes = sizes;
  }

  async read(): Promise<CgroupStats> {
    this.#reading++;
    let texts: (string | number)[];
    try {
      texts = await native().readFiles(this.#fds);
    } finally {
      this.#reading--;
      if (this.#closed) this.#release();
    }
    const found = new Map<string, string>();
    for (const [index, text] of texts.entries()) if (typeof text === 'string') found.set(this.#keys[index] as string, text.replace(/\n$/, ''));
    const at: Look = (version, file) => found.get(keyOf(version, file));
    const stats = statsOf(at, this.#sizes);
    const below = await killsBelow(this.#places, at('v1', links));
    if (stats.memory && below > 0) {
      stats.memory.events.oom += below;
      stats.memory.events.oomKill += below;
    }
    return stats;
  }

  close(): void {
    this.#closed = true;
    this.#release();
  }

  #release(): void {
    if (this.#reading > 0) return;
    for (const fd of this.#fds.splice(0)) native().close(fd);
  }
}

/** What is left to tell of a group when its last process has ended. */
export interface LastCounts {
  readonly populated: boolean;
  readonly cpu: CgroupStats['cpu'];
  readonly io: CgroupStats['io'];
  readonly memoryPeak: number | undefined;
  readonly oomKills: number | undefined;
  readonly pidsPeak: number | undefined;
}

const lastFiles: Readonly<Record<string, Readonly<Partial<Record<Version, readonly string[]>>>>> = {
  memory: { v2: ['memory.peak', 'memory.events'], v1: ['memory.max_usage_in_bytes', 'memory.oom_control', links] },
  cpuacct: files['cpuacct'] as object,
  io: files['io'] as object,
  blkio: { v1: ['blkio.throttle.io_service_bytes_recursive'] },
  pids: { v2: ['pids.peak'], v1: ['pids.peak'] },
};

/** Peaks and events are gone with the group: read once, by path, and away from the event loop. */
export async function lastCounts(places: readonly Place[]): Promise<LastCounts> {
  const wanted = places.flatMap(({ hierarchy: { version }, directory, controllers }) =>
    [...(version === 'v2' ? ['cgroup.events', 'cpu.stat'] : ['cgroup.procs']), ...controllers.flatMap((name) => lastFiles[name]?.[version] ?? [])].map(
      (file) => ({
        key: keyOf(version, file),
        path: join(directory, file),
      }),
    ),
  );
  const texts = await native().readFiles(wanted.map(({ path }) => path));
  const found = new Map<string, string>();
  for (const [index, text] of texts.entries()) if (typeof text === 'string') found.set((wanted[index] as { key: string }).key, text.trimEnd());
  const at: Look = (version, file) => found.get(keyOf(version, file));
  const below = await killsBelow(places, at('v1', links));
  const kills = flatKeyed(at('v2', 'memory.events'))['oom_kill'] ?? flatKeyed(at('v1', 'memory.oom_control'))['oom_kill'];
  return {
    populated: at('v2', 'cgroup.events')?.includes('populated 1') ?? (at('v1', 'cgroup.procs') ?? '') !== '',
    cpu: cpuOf(at),
    io: ioOf(at),
    memoryPeak: numberAt(at, 'v2', 'memory.peak') ?? numberAt(at, 'v1', 'memory.max_usage_in_bytes'),
    oomKills: kills === undefined ? undefined : kills + below,
    pidsPeak: numberAt(at, 'v2', 'pids.peak') ?? numberAt(at, 'v1', 'pids.peak'),
  };
}

/**
 * Victims in groups below. v2 counts them in the groups above as well, v1 in their own group only (memcg_memory_event). A directory
 * of groups has as many links as children, and two.
 */
async function killsBelow(places: readonly Place[], links: string | undefined): Promise<number> {
  const v1 = memoryOfV1(places);
  if (!v1 || Number(links ?? 2) <= 2) return 0;
  const entries = await readdir(v1.directory, { withFileTypes: true, recursive: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isDirectory()).map(({ parentPath, name }) => join(parentPath, name, 'memory.oom_control'));
  const texts = await native().readFiles(files);
  return texts.reduce((sum: number, text) => sum + (typeof text === 'string' ? (flatKeyed(text)['oom_kill'] ?? 0) : 0), 0);
}

const memoryOfV1 = (places: readonly Place[]): Place | undefined =>
  places.find(({ hierarchy, controllers }) => hierarchy.version === 'v1' && controllers.includes('memory'));

/** Of v1, with those below. */
export async function oomKills(places: readonly Place[]): Promise<number> {
  const directory = memoryOfV1(places)?.directory ?? '';
  const [text, links] = await native().readFiles([join(directory, 'memory.oom_control'), directory]);
  return (typeof text === 'string' ? (flatKeyed(text)['oom_kill'] ?? 0) : 0) + (await killsBelow(places, String(links)));
}

type Look = (version: Version, file: string) => string | undefined;

function statsOf(at: Look, hugePages: readonly string[]): CgroupStats {
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
const numberAt = (at: Look, version: Version, file: string): number | undefined => {
  const text = at(version, file);
  return text === undefined ? undefined : Number(text);
};

function cpuOf(at: Look): CgroupStats['cpu'] {
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

function ioOf(at: Look): CgroupStats['io'] {
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
