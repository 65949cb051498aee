import { native } from '../native.js';
import type { Version } from './hierarchies.js';

/** A file of a group, and the names of the counters in it that are wanted: '' is the whole file as a number. Without names: its text. */
export interface Wanted {
  readonly version: Version;
  readonly file: string;
  readonly keys?: readonly string[];
}

/** One reading of a group's files. Undefined: this group has no such file, or that no such line. */
export interface Look {
  number(version: Version, file: string, key?: string): number | undefined;
  text(version: Version, file: string): string | undefined;
}

type Places = Readonly<Record<Version, Map<string, Map<string, number>>>>;

/** Reads the same files again and again, in one visit to the thread pool each time. */
export class Reading {
  readonly #files: InstanceType<ReturnType<typeof native>['CounterFiles']>;
  /** Where each counter is among the numbers; a text among the texts. */
  readonly #places: Places = { v1: new Map(), v2: new Map() };

  /** `files`: descriptors or paths, in the order of `wanted`. */
  constructor(wanted: readonly Wanted[], files: readonly (number | string)[]) {
    this.#files = new (native().CounterFiles)(
      files,
      wanted.map(({ keys }) => keys),
    );
    let numbers = 0;
    let texts = 0;
    for (const { version, file, keys } of wanted) {
      this.#places[version].set(file, new Map(keys ? keys.map((key) => [key, numbers++]) : [['', texts++]]));
    }
  }

  async look(): Promise<Look> {
    const [numbers, texts] = await this.#files.read();
    const places = this.#places;
    return {
      number(version, file, key = '') {
        const number = numbers[places[version].get(file)?.get(key) ?? -1];
        return number === undefined || Number.isNaN(number) ? undefined : number;
      },
      text: (version, file) => texts[places[version].get(file)?.get('') ?? -1]?.replace(/\n$/, ''),
    };
  }
}
