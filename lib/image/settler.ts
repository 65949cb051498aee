import { hasRecent, settle } from './recent.js';
import type { StoreDirectory } from './store-directory.js';
import type { StoreLock } from './store-lock.js';

/** Milliseconds: what comes one after the other is synced once, and a process that ends by then is not held. */
const patience = 1000;

/** Brings what is recent in a store to the disk, in the background. */
export class Settler {
  readonly #store: StoreDirectory;
  readonly #own: StoreLock;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #wanted = false;
  #ended = false;

  constructor(store: StoreDirectory, own: StoreLock) {
    this.#store = store;
    this.#own = own;
    // Of a process that has died, perhaps.
    if (hasRecent(store)) this.later();
  }

  later(): void {
    this.#wanted = true;
    if (this.#running || this.#timer || this.#ended) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.now().then(
        () => this.#wanted && this.later(),
        () => {
          // Tried no more, and told to whoever disposes.
          this.#wanted = true;
        },
      );
    }, patience);
    this.#timer.unref();
  }

  /** Nothing is begun after it: the next one who opens the store does the rest. */
  async end(): Promise<void> {
    this.#ended = true;
    await this.now();
  }

  /** All that was put there before this call. */
  async now(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#running?.catch(() => {});
    if (!this.#wanted) return;
    this.#wanted = false;
    this.#running = settle(this.#store, this.#own);
    try {
      await this.#running;
    } finally {
      this.#running = undefined;
    }
  }
}
