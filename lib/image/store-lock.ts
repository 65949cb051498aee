import { closeSync, openSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { IsolationError } from '../errors.js';
import { native } from '../native.js';
import { type Digest, hexOf } from './digest.js';

// Locks on ranges of bytes of one file. They are open file description locks (fcntl(2), F_OFD_SETLK): the kernel drops them with
// the last descriptor of their holder, so after SIGKILL as well, and two holders in one process exclude each other, too.
//
//   byte 0              shared while something is put in its place, exclusive while something is taken away
//   a lease's byte      shared by everybody who needs that layer to stay
//   a partial's byte    exclusive, while it is being pulled
//   a temp's byte       exclusive, for as long as the operation lives that the directory in temp belongs to

const leases = 1;
const temps = 2 ** 49;
const partials = 2 ** 50;
/** 48 bits of a digest: two of one byte would only make a layer stay for longer than it had to. */
const byteOf = (digest: Digest): number => Number.parseInt(hexOf(digest).slice(0, 12), 16);

const EAGAIN = -11;
const EACCES = -13;

export class StoreLock {
  readonly #path: string;
  #fd: number;
  /** Shared twice by one description, it would be unlocked once. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(path: string) {
    this.#path = path;
    this.#fd = openSync(path, 'r+');
  }

  /** Of a file of the store. */
  get descriptor(): number {
    return this.#fd;
  }

  /** While this runs nobody takes anything away. */
  adding<T>(work: () => Promise<T>): Promise<T> {
    return this.#with(true, work);
  }

  /** While this runs nobody adds anything or takes anything away. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    return this.#with(false, work);
  }

  /** Within `adding` or `alone` only: then nobody who collects can have it. */
  lease(digest: Digest): void {
    if (!this.#try(leases + byteOf(digest), true)) throw new Error(`cloister: the lease of ${digest} is held where it cannot be`);
  }

  /** Within `alone`: whether nobody else has a lease of it. One of this lock itself is given up. */
  isFree(digest: Digest): boolean {
    const byte = leases + byteOf(digest);
    if (!this.#try(byte, false)) return false;
    native().unlockRange(this.#fd, byte, 1);
    return true;
  }

  /** false: its operation lives. Otherwise it is this one's. */
  claimTemp(name: Digest): boolean {
    return this.#try(temps + byteOf(name), false);
  }

  /** false: somebody else pulls that blob just now. */
  claimPartial(blob: Digest): boolean {
    return this.#try(partials + byteOf(blob), false);
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  #with<T>(shared: boolean, work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(async () => {
      // Asked for again and again: F_OFD_SETLKW would hold one of the four threads that all of Node's file system calls share, and
      // who has the lock may be waiting for just that thread. It is held for some milliseconds, by few.
      for (let wait = 1; !this.#try(0, shared); wait = Math.min(2 * wait, 50)) await delay(wait);
      try {
        return await work();
      } finally {
        native().unlockRange(this.#fd, 0, 1);
      }
    });
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  #try(byte: number, shared: boolean): boolean {
    if (this.#fd < 0) throw new IsolationError('ERR_CLOISTER_DISPOSED', 'this LayerStore has been disposed');
    const result = native().lockRange(this.#fd, byte, 1, shared);
    if (result === 0) return true;
    if (result === EAGAIN || result === EACCES) return false;
    throw IsolationError.ofErrno('ERR_CLOISTER_STORE', result, {
      step: 'lock the store',
      syscall: 'fcntl',
      path: this.#path,
      hint: 'The store must be on a file system with open file description locks: any local one.',
    });
  }
}
