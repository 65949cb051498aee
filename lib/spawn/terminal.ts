import { readSync } from 'node:fs';
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
  #started = false;
  #ended = false;
  #inLine = false;
  #referenced = true;

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
      this.#fd = native().duplicate(fd, 0);
      native().setWindowSize(fd, this.#size.columns, this.#size.rows);
      this.#master = new ReadStream(native().handOver(fd));
      if (!this.#referenced) this.#master.unref();
      // EIO is how a master reads that the last slave has been closed: pty(7).
      this.#master.on('error', () => this.#end());
      this.#master.on('end', () => this.#end());
      this.#master.on('close', () => this.#end());
      if (this.#started) this.start();
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const act of waiting) act();
  }

  /** From now on what the program says is read. */
  start(): void {
    this.#started = true;
    this.#master?.on('data', (chunk: Buffer) => {
      if (!this.#pass(chunk)) this.#master?.pause();
    });
  }

  get size(): { readonly columns: number; readonly rows: number } {
    return this.#size;
  }

  resize(columns: number, rows: number): void {
    this.#size = { columns, rows };
    if (this.#fd >= 0) native().setWindowSize(this.#fd, columns, rows);
  }

  /** As a socket has them: whether the loop waits for what it says. */
  ref(): this {
    return this.#setRef(true);
  }

  unref(): this {
    return this.#setRef(false);
  }

  #setRef(on: boolean): this {
    this.#referenced = on;
    if (on) this.#master?.ref();
    else this.#master?.unref();
    return this;
  }

  waiting(): number {
    return this.#fd >= 0 ? Math.max(native().waitingBytes(this.#fd), 0) : 0;
  }

  override _read(): void {
    if (this.#started) this.#master?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const last = chunk.at(-1);
    this.#inLine = last === undefined ? this.#inLine : last !== 0x0a && last !== 0x0d && last !== 0x04;
    this.#then(() => {
      // As with a pipe: that nobody reads any more is not an error that could end the host.
      if (!this.#master || this.#master.destroyed || this.#ended) done();
      else this.#master.write(chunk, () => done());
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
    this.#close();
    done(error);
  }

  #then(act: () => void): void {
    if (this.#master || this.#ended) act();
    else this.#waiting.push(act);
  }

  /** False: the reader has enough for now. */
  #pass(chunk: Buffer): boolean {
    const rest = this.#meter(chunk);
    return rest === undefined || rest.length === 0 || this.push(rest);
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (!this.destroyed) this.#drain();
    this.#close();
    // When all has been read. It is not ended for writing: a write that comes later would be an 'error'.
    this.once('end', () => this.destroy());
    this.push(null);
  }

  /**
   * libuv takes a read of less than its buffer, at a descriptor that has been hung up, for the last one (uv__stream_io); but a
   * terminal gives at most 4,095 bytes at once. What is left is what the kernel has buffered, a few pages.
   */
  #drain(): void {
    const piece = Buffer.allocUnsafe(4096);
    for (;;) {
      let size: number;
      try {
        size = this.#fd < 0 ? 0 : readSync(this.#fd, piece);
      } catch {
        return;
      }
      if (size === 0) return;
      this.#pass(Buffer.from(piece.subarray(0, size)));
    }
  }

  #close(): void {
    this.#master?.destroy();
    if (this.#fd >= 0) native().close(this.#fd);
    this.#fd = -1;
  }
}
