import { join } from 'node:path';
import { native } from '../native.js';
import { hugePageSizes } from './controllers/hugetlb.js';
import { type Look, statsOf } from './counters.js';
import type { Version } from './hierarchies.js';
import { type Place, readerOf } from './places.js';
import type { CgroupStats } from './types.js';
import { killsBelow } from './victims.js';

const always = ['cgroup.events', 'cgroup.freeze', 'cpu.stat', 'cpu.pressure', 'memory.pressure', 'io.pressure'];

/** The directory itself, which is read as its number of links. */
export const links = '.';

/** The files of each controller, v2's and v1's. A kernel that is without one of them is without what it says. */
export const files: Readonly<Record<string, Readonly<Partial<Record<Version, readonly string[]>>>>> = {
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

export const keyOf = (version: Version, file: string): string => `${version}:${file}`;

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
