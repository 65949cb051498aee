import { join } from 'node:path';
import { cpuIn, ioIn, links, populatedIn, wantedOf } from './counters.js';
import type { Place } from './places.js';
import { Reading } from './reading.js';
import type { CgroupStats } from './types.js';
import { killsBelow, mayHaveBelow } from './victims.js';

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
    wantedOf(version, version === 'v1' ? controllers.filter((name) => name !== 'cpu') : controllers, [], lastFiles).map((each) => ({
      ...each,
      path: join(directory, each.file),
    })),
  );
  const reading = new Reading(wanted, 'read once', (at) => {
    const [populated, cpu, io, link] = [populatedIn(at), cpuIn(at), ioIn(at), at.number('v1', links)];
    const peak = at.number('v2', 'memory.peak') || at.number('v1', 'memory.max_usage_in_bytes');
    const kills = at.number('v2', 'memory.events', 'oom_kill') || at.number('v1', 'memory.oom_control', 'oom_kill');
    const pids = at.number('v2', 'pids.peak') || at.number('v1', 'pids.peak');
    return (look) => {
      const number = (place: number): number | undefined => (Number.isNaN(look.numbers[place]) ? undefined : look.numbers[place]);
      const counts = { memoryPeak: number(peak), oomKills: number(kills), pidsPeak: number(pids) };
      return { links: number(link) ?? 0, counts: { populated: populated(look), cpu: cpu(look), io: io(look), ...counts } };
    };
  });
  const { links: found, counts } = await reading.read();
  if (counts.oomKills === undefined || !mayHaveBelow(found)) return counts;
  return { ...counts, oomKills: counts.oomKills + (await killsBelow(places)) };
}
