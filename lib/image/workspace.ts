import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { removeTree } from '../tree/tree.js';
import { digestOf } from './digest.js';
import type { StoreDirectory } from './store-directory.js';
import { StoreLock } from './store-lock.js';

/**
 * What one operation on a store holds: a directory of its own on the store's file system, and locks. Both end with it; those of a
 * process that was killed are swept by whoever opens the store next.
 */
export class Workspace implements AsyncDisposable {
  readonly store: StoreDirectory;
  readonly lock: StoreLock;
  readonly path: string;
  onEnd: (() => void) | undefined;
  #count = 0;

  private constructor(store: StoreDirectory, lock: StoreLock, path: string) {
    this.store = store;
    this.lock = lock;
    this.path = path;
  }

  static async open(store: StoreDirectory): Promise<Workspace> {
    const lock = new StoreLock(store.lock);
    try {
      // Locked before it exists, so that no sweeper ever finds it without an owner.
      let name: string;
      do name = `${process.pid}-${startTime()}-${randomBytes(6).toString('hex')}`;
      while (!lock.claimTemp(digestOf(name)));
      const path = join(store.temp, name);
      await mkdir(path, { mode: 0o700 });
      return new Workspace(store, lock, path);
    } catch (error) {
      lock.close();
      throw error;
    }
  }

  /** A name in its directory that is not in use. */
  readonly newPath = (): string => join(this.path, String(this.#count++));

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      // Empty, mostly: all has been put in its place.
      await rmdir(this.path).catch(() => removeTree(this.path));
    } finally {
      this.lock.close();
      this.onEnd?.();
    }
  }
}

/** Takes away the directories of operations that died. The names tell a person whose they were; the lock tells us that it is over. */
export async function sweep(store: StoreDirectory): Promise<void> {
  for (const name of readdirSync(store.temp)) {
    const lock = new StoreLock(store.lock);
    try {
      if (lock.claimTemp(digestOf(name))) await removeTree(join(store.temp, name));
    } finally {
      lock.close();
    }
  }
}

/** With the pid it names one process of this boot. proc_pid_stat(5), field 22. */
function startTime(): string {
  const stat = readFileSync('/proc/self/stat', 'latin1');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '0';
}
