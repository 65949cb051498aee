import { join } from 'node:path';
import { native } from '../native.js';
import { hugePageSizes } from './controllers/hugetlb.js';
import { links, statsOf, wantedOf } from './counters.js';
import { Reading, type Wanted } from './look.js';
import { type Place, readerOf } from './places.js';
import type { CgroupStats } from './types.js';
import { killsBelow } from './victims.js';

/** The files that tell of a group, held open for as long as it is: one call then reads them all. */
export class StatFiles {
  readonly #fds: number[] = [];
  readonly #files: Reading;
  readonly #places: readonly Place[];
  readonly #sizes: readonly string[];
  #reading = 0;
  #closed = false;

  constructor(places: readonly Place[]) {
    this.#places = places;
    const sizes: string[] = [];
    const opened: Wanted[] = [];
    for (const { hierarchy, directory, controllers } of places) {
      const found = controllers.includes('hugetlb') ? hugePageSizes(readerOf(directory)) : [];
      sizes.push(...found);
      for (const wanted of wantedOf(hierarchy.version, controllers, found)) {
        const fd = native().openFile(join(directory, wanted.file));
        if (fd < 0) continue;
        opened.push(wanted);
        this.#fds.push(fd);
      }
    }
    this.#sizes = sizes;
    this.#files = new Reading(opened, this.#fds);
  }

  async read(): Promise<CgroupStats> {
    this.#reading++;
    try {
      const at = await this.#files.look();
      const stats = statsOf(at, this.#sizes);
      const below = await killsBelow(this.#places, at.number('v1', links));
      if (stats.memory && below > 0) {
        stats.memory.events.oom += below;
        stats.memory.events.oomKill += below;
      }
      return stats;
    } finally {
      this.#reading--;
      if (this.#closed) this.#release();
    }
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
