import { Duplex } from 'node:stream';
import { ReadStream } from 'node:tty';
import { native } from '../native.js';
import type { Meter } from './streams.js';

/**
 * The master side of a sandbox's terminal. It is there before the terminal is, which the child opens in its own devpts: what is
 * written meanwhile waits.
 */
export class Terminal extends Duplex {
  #size: { columns: number; rows: number };
  #master: ReadStream | undefined;
  #fd = -1;
  readonly #meter: Meter;
  #waiting: (() => void)[] = [];
  #ended = false;
  #inLine = false;

  constructor(size: { columns: number; rows: number }, meter: Meter) {
    super({ allowHalfOpen: true });
    this.#size = size;
    this.#meter = meter;
  }

  /** The master has arrived; undefined if it never will. */
  connect(fd: number | undefined): void {
    if (fd === undefined || this.destroyed) {
      if (fd !== undefined) native().close(fd);
      this.#end();
    } else {
      this.#fd = fd;
      native().setWindowSize(fd, this.#size.columns, this.#size.rows);
      this.#master = new ReadStream(fd);
      this.#master.on('data', (chunk: Buffer) => {
        const rest = this.#meter(chunk);
        if (rest !== undefined && rest.length > 0 && !this.push(rest)) this.#master?.pause();
      });
      // EIO is how a master reads that the last slave has been closed: pty(7).
      this.#master.on('error', () => this.#end());
      this.#master.on('end', () => this.#end());
      this.#master.on('close', () => this.#end());
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const act of waiting) act();
  }

  resize(columns: number, rows: number): void {
    this.#size = { columns, rows };
    if (this.#fd >= 0 && this.#master && !this.#master.destroyed) native().setWindowSize(this.#fd, columns, rows);
  }

  waiting(): number {
    return this.#master && !this.#master.destroyed ? Math.max(native().waitingBytes(this.#fd), 0) : 0;
  }

  override _read(): void {
    this.#master?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const last = chunk.at(-1);
    this.#inLine = last === undefined ? this.#inLine : last !== 0x0a && last !== 0x0d && last !== 0x04;
    this.#then(() => {
      if (!this.#master || this.#master.destroyed || this.#ended) done(new Error('the terminal has been closed'));
      else this.#master.write(chunk, (error) => done(error ?? null));
    });
  }

  override _final(done: (error?: Error | null) => void): void {
    // A terminal has no end of file of its own: ^D in canonical mode is one, at the begin of a line; within one, it only hands
    // over what has been typed so far: termios(3).
    this.#then(() => {
      if (!this.#master || this.#master.destroyed || this.#ended) done();
      else this.#master.write(this.#inLine ? '\u0004\u0004' : '\u0004', () => done());
    });
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#master?.destroy();
    done(error);
  }

  #then(act: () => void): void {
    if (this.#master || this.#ended) act();
    else this.#waiting.push(act);
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.push(null);
    this.#master?.destroy();
    // Nobody can be written to any more.
    if (!this.writableEnded) this.end();
  }
}
