import { join } from 'node:path';
import { hugePageSizes } from './controllers/hugetlb.js';
import { links, statsIn, wantedOf } from './counters.js';
import type { Place } from './places.js';
import { Reading } from './reading.js';
import type { CgroupStats } from './types.js';
import { killsBelow, mayHaveBelow } from './victims.js';

/** The files that tell of a group, held open for as long as it is: one call then reads them all. */
export class StatFiles {
  readonly #files: Reading<{ readonly stats: CgroupStats; readonly links: number }>;
  readonly #places: readonly Place[];

  constructor(places: readonly Place[]) {
    this.#places = places;
    const wanted = places.flatMap(({ hierarchy: { version }, directory, controllers }) =>
      wantedOf(version, controllers, hugePageSizes).map((each) => ({ ...each, path: join(directory, each.file) })),
    );
    this.#files = new Reading(wanted, 'kept open', (at) => {
      const [stats, link] = [statsIn(at, hugePageSizes), at.number('v1', links)];
      return (look) => ({ stats: stats(look), links: look.numbers[link] as number });
    });
  }

  async read(): Promise<CgroupStats> {
    const { stats, links } = await this.#files.read();
    const below = mayHaveBelow(links) ? await killsBelow(this.#places) : 0;
    if (stats.memory && below > 0) {
      stats.memory.events.oom += below;
      stats.memory.events.oomKill += below;
    }
    return stats;
  }

  close(): void {
    this.#files.close();
  }
}
