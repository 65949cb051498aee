import { join } from 'node:path';
import { cpuOf, ioOf, isPopulated, links, wantedOf } from './counters.js';
import { Reading } from './look.js';
import type { Place } from './places.js';
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

const lastFiles: ReadonlySet<string> = new Set([
  ...['cgroup.events', 'cgroup.procs', 'cpu.stat', 'cpuacct.usage', 'cpuacct.usage_user', 'cpuacct.usage_sys'],
  ...['memory.peak', 'memory.events', 'memory.max_usage_in_bytes', 'memory.oom_control', links],
  ...['io.stat', 'blkio.throttle.io_service_bytes_recursive', 'pids.peak'],
]);

/** Peaks and events are gone with the group: read once, by path, and away from the event loop. */
export async function lastCounts(places: readonly Place[]): Promise<LastCounts> {
  const wanted = places.flatMap(({ hierarchy: { version }, directory, controllers }) =>
    // The periods of cpu.stat, v1's too, are not told of a run.
    wantedOf(version, version === 'v1' ? controllers.filter((name) => name !== 'cpu') : controllers, [], lastFiles).map((file) => ({ file, directory })),
  );
  const reading = new Reading(
    wanted.map(({ file }) => file),
    wanted.map(({ file: { file }, directory }) => join(directory, file)),
  );
  const at = await reading.look();
  const below = await killsBelow(places, at.number('v1', links));
  const kills = at.number('v2', 'memory.events', 'oom_kill') ?? at.number('v1', 'memory.oom_control', 'oom_kill');
  return {
    populated: isPopulated(at),
    cpu: cpuOf(at),
    io: ioOf(at),
    memoryPeak: at.number('v2', 'memory.peak') ?? at.number('v1', 'memory.max_usage_in_bytes'),
    oomKills: kills === undefined ? undefined : kills + below,
    pidsPeak: at.number('v2', 'pids.peak') ?? at.number('v1', 'pids.peak'),
  };
}
