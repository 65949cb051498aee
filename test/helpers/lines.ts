import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

/** The lines of a stream, one after the other: what is waited for instead of a time. */
export class Lines {
  readonly seen: string[] = [];
  #taken = 0;
  #ended = false;
  readonly #waiting: (() => void)[] = [];

  constructor(stream: Readable) {
    const reader = createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY });
    reader.on('line', (line) => {
      this.seen.push(line);
      this.#wake();
    });
    const end = () => {
      this.#ended = true;
      this.#wake();
    };
    reader.on('close', end);
    // A stream that is destroyed has no end for the reader to see.
    stream.on('close', end);
  }

  /** Rejects when the stream has ended. */
  async next(): Promise<string> {
    for (;;) {
      const line = this.seen[this.#taken];
      if (line !== undefined) {
        this.#taken += 1;
        return line;
      }
      if (this.#ended) throw new Error(`no more lines after:\n${this.seen.join('\n') || '(none)'}`);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** The next line that is, or matches, `pattern`; those before it are passed over. */
  async until(pattern: string | RegExp): Promise<string> {
    for (;;) {
      const line = await this.next().catch((cause: unknown) => {
        throw new Error(`${pattern} was never printed`, { cause });
      });
      if (typeof pattern === 'string' ? line === pattern : pattern.test(line)) return line;
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
