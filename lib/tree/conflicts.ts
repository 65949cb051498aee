import { contentsDiffer, type Place, timesDiffer } from './compare.js';
import * as files from './files.js';
import { join, printable } from './names.js';

export interface Since {
  readonly seconds: number;
  readonly nanoseconds: number;
  /** Of changes at this very moment: they came later. Else the clock is too coarse to tell. */
  readonly inclusive: boolean;
  /** When we have written to a path ourselves. */
  readonly marks: Readonly<Record<string, string>>;
}

/** Whether what is in the target is still what the layer was made on. */
export class Unchanged {
  readonly #since: Since | undefined;

  constructor(since: Since | undefined) {
    this.#since = since;
  }

  /** undefined: it is. */
  reason(target: Place, below: Place): string | undefined {
    const [now, before] = [target.status, below.status];
    if (now.type !== before.type) return `it is a ${now.type} there now, and was a ${before.type}`;
    if (now.type === 'directory') return this.#directory(target, below);
    if (this.#isLater(target) || !this.#isLike(target, below)) return 'it has been changed there since';
    return undefined;
  }

  /** It is already as it is to be. */
  isSame(place: Place, target: Place, contents: (() => number) | undefined): boolean {
    const [a, b] = [place.status, target.status];
    return a.type === b.type && a.size === b.size && a.mode === b.mode && !timesDiffer(a, b) && !contentsDiffer(place, target, contents);
  }

  #isLike(target: Place, below: Place): boolean {
    const [now, before] = [target.status, below.status];
    if (now.mode !== before.mode || now.major !== before.major || now.minor !== before.minor) return false;
    if (now.type === 'file' && now.size !== before.size) return false;
    if (now.type === 'file' && !timesDiffer(now, before)) return true;
    return !contentsDiffer(target, below);
  }

  #isLater({ path, status }: Place): boolean {
    if (!this.#since) return false;
    const { seconds, nanoseconds, inclusive, marks } = this.#since;
    const key = path.toString('latin1');
    if (Object.hasOwn(marks, key) && marks[key] === status.changed) return false;
    const [at = 0, ns = 0] = status.changed.split('.').map(Number);
    return at > seconds || (at === seconds && (inclusive ? ns >= nanoseconds : ns > nanoseconds));
  }

  /** All that is in it, as all of it is to go. */
  #directory(target: Place, below: Place): string | undefined {
    if (this.#isLater(target)) return `something in ${printable(target.path)} has been made, deleted or changed there since`;
    const now = files.openDirectory(target.directory, target.name, target.path);
    try {
      const before = files.openDirectory(below.directory, below.name, below.path);
      try {
        for (const name of files.namesIn(now, target.path)) {
          const path = join(target.path, name);
          const status = files.statusOf(now, name, path);
          const old = files.statusOf(before, name, path);
          if (!status) continue;
          if (!old) return `${printable(path)} has been made there since`;
          const reason = this.reason({ directory: now, name, path, status }, { directory: before, name, path, status: old });
          if (reason) return status.type === 'directory' && old.type === 'directory' ? reason : `${printable(path)}: ${reason}`;
        }
        return undefined;
      } finally {
        files.close(before);
      }
    } finally {
      files.close(now);
    }
  }
}
