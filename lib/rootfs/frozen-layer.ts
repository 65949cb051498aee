import { join } from 'node:path';
import { native } from '../native.js';
import * as k from '../plan/constants.js';
import type { Lower } from './lowers.js';
import type { Owner } from './ordinary-owner.js';

/** A directory tree that was a root's writable layer when the root was forked; never changed again. Forks of the fork share it. */
export class FrozenLayer {
  readonly #fd: number;
  readonly #path: string | undefined;
  readonly #remove: (owner: Owner | undefined) => Promise<void>;
  #users = 1;

  /** Takes the descriptor over. `path`: where it is, on a disk. `remove`: takes away what is left, when nobody uses it. */
  constructor(fd: number, path: string | undefined, remove: (owner: Owner | undefined) => Promise<void>) {
    this.#fd = fd;
    this.#path = path;
    this.#remove = remove;
  }

  /** The layer for the part of a root that is mounted there, if it has anything of it. */
  lowerAt(target: string): Lower[] {
    const name = target.slice(1);
    let fd = this.#fd;
    for (const part of name.split('/').filter(Boolean)) {
      const next = native().files.open(fd, Buffer.from(part), k.O_PATH | k.O_DIRECTORY, 0, 0);
      if (fd !== this.#fd) native().close(fd);
      if (next < 0) return [];
      fd = next;
    }
    if (fd !== this.#fd) native().close(fd);
    return [{ kind: 'held', fd: this.#fd, name, path: this.#path && join(this.#path, name) }];
  }

  /** Borrowed. */
  get fd(): number {
    return this.#fd;
  }

  retain(): this {
    this.#users++;
    return this;
  }

  /** `owner`: the namespaces of whoever releases it, an ordinary user's, in which its files can be removed. */
  async release(owner: Owner | undefined): Promise<void> {
    if (--this.#users > 0) return;
    native().close(this.#fd);
    await this.#remove(owner);
  }
}
