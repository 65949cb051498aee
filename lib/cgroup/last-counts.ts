import { join } from 'node:path';
import { native } from '../native.js';
import { flatKeyed } from './controllers/controller.js';
import { cpuOf, ioOf, type Look, numberAt } from './counters.js';
import type { Version } from './hierarchies.js';
import type { Place } from './places.js';
import { files, keyOf, links } from './stats.js';
import type { CgroupStats } from './types.js';
import { killsBelow } from './victims.js';

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
