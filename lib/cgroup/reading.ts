import { native } from '../native.js';
import type { Version } from './hierarchies.js';

/** A file of a group, and the names of the counters in it that are wanted: '' is the whole file as a number. Without names: its text. */
export interface Wanted {
  readonly version: Version;
  readonly file: string;
  readonly keys?: readonly string[];
}

export interface WantedAt extends Wanted {
  readonly path: string;
}

/** One reading of a group's files, each counter and text at its place. They are lent: the next reading is put into the same arrays. */
export interface Look {
  /** NaN: this group has no such counter. */
  readonly numbers: Float64Array;
  readonly texts: readonly (string | undefined)[];
}

/** Where in a `Look` things are. Asked once for each group: a sample then costs no look at a name. */
export interface Places {
  number(version: Version, file: string, key?: string): number;
  text(version: Version, file: string): number;
}

/** The first number and the first text are those of files that there are not. */
const nowhere = 0;

/** Reads the same files again and again, in one visit to the thread pool each time, and makes something of them. */
export class Reading<T> {
  readonly #files: InstanceType<ReturnType<typeof native>['CounterFiles']>;
  readonly #make: (numbers: Float64Array, texts: readonly (string | undefined)[]) => T;

  /** `plan` looks up places, and gives what is done with each look. Kept open: from the first reading on, until `close`. */
  constructor(wanted: readonly WantedAt[], files: 'kept open' | 'read once', plan: (at: Places) => (look: Look) => T) {
    this.#files = new (native().CounterFiles)(
      wanted.map(({ path }) => path),
      wanted.map(({ keys }) => keys),
      files === 'kept open',
    );
    const places = { number: new Map<string, number>(), text: new Map<string, number>() };
    // More than one hierarchy of v1 may have a file of that name: the last is taken.
    let [numbers, texts] = [nowhere, nowhere];
    for (const { version, file, keys } of wanted) {
      for (const key of keys ?? []) places.number.set(`${version} ${file} ${key}`, ++numbers);
      if (!keys) places.text.set(`${version} ${file}`, ++texts);
    }
    const made = plan({
      number: (version, file, key = '') => places.number.get(`${version} ${file} ${key}`) ?? nowhere,
      text: (version, file) => places.text.get(`${version} ${file}`) ?? nowhere,
    });
    this.#make = (numbers, texts) => made({ numbers, texts });
  }

  read(): Promise<T> {
    return this.#files.read(this.#make);
  }

  /** Readings that have begun come to their end. */
  close(): void {
    this.#files.close();
  }
}
