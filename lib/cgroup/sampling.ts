import { optionError } from '../errors.js';
import * as check from '../spawn/validate.js';

export interface SamplingOptions {
  readonly intervalMs?: number;
  readonly signal?: AbortSignal;
}

/** Looks at something again and again, until `end`. */
export class Sampling {
  #ended = false;
  readonly #pauses = new Set<() => void>();

  /** Until the loop is left, or the signal aborts. `at` is performance.now(). */
  async *each<T extends object>(options: SamplingOptions, look: () => Promise<T>): AsyncGenerator<T & { at: number }, void, void> {
    check.onlyKeys(check.record(options, 'options'), '', ['intervalMs', 'signal']);
    const interval = options.intervalMs === undefined ? 1000 : check.milliseconds(options.intervalMs, 'intervalMs');
    const { signal } = options;
    if (signal !== undefined && !(signal instanceof AbortSignal)) throw optionError('signal', 'an AbortSignal', signal);
    for (let next = performance.now(); !this.#ended && !signal?.aborted; ) {
      yield Object.assign(await look(), { at: performance.now() });
      // Those that were missed are left out, and not made up for.
      next = Math.max(next + interval, performance.now());
      await this.#pause(next - performance.now(), signal);
    }
  }

  /** Until then, the signal, or the end. */
  #pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', end);
        this.#pauses.delete(end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      signal?.addEventListener('abort', end, { once: true });
      this.#pauses.add(end);
    });
  }

  end(): void {
    this.#ended = true;
    for (const end of this.#pauses) end();
  }
}
