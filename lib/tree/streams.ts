import { native } from '../native.js';
import * as k from '../plan/constants.js';
import { must, self } from './files.js';

// Bytes from and to a pipe (or a file), on the side of the thread that does the work.

const size = 2 ** 18;
/** Milliseconds after which a waiting thread looks whether it has been told to end: Worker.terminate() cannot interrupt a system call. */
const patience = 200;

function awaitPipe(fd: number, forWriting: boolean): void {
  while (must(native().files.wait(fd, forWriting, patience), 'poll', self) === 0);
}

/** Both are told each byte, once and in their order. */
export interface SourceWatch {
  /** As it comes: in large pieces. */
  readonly read?: (bytes: Buffer) => void;
  /** As it is used. */
  readonly taken?: (bytes: Buffer) => void;
}

export class ByteSource {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafe(size);
  #start = 0;
  #end = 0;
  #ended = false;
  readonly #watch: SourceWatch;

  constructor(fd: number, watch: SourceWatch = {}) {
    this.#fd = fd;
    this.#watch = watch;
  }

  /** At least one byte and at most `most`, until the next call; undefined at the end. */
  some(most: number): Buffer | undefined {
    if (this.#start === this.#end && !this.#fill()) return undefined;
    const length = Math.min(most, this.#end - this.#start);
    const bytes = this.#buffer.subarray(this.#start, this.#start + length);
    this.#start += length;
    this.#watch.taken?.(bytes);
    return bytes;
  }

  /** Exactly so many, until the next call (fewer at the end). */
  exactly(count: number): Buffer {
    const first = this.some(count) ?? self;
    if (first.length === count) return first;
    const whole = Buffer.allocUnsafe(count);
    let filled = first.copy(whole);
    for (let next = this.some(count - filled); next; next = this.some(count - filled)) {
      filled += next.copy(whole, filled);
      if (filled === count) break;
    }
    return whole.subarray(0, filled);
  }

  #fill(): boolean {
    while (!this.#ended) {
      const count = native().files.read(this.#fd, this.#buffer, 0, size, -1);
      if (count === -k.EAGAIN) {
        awaitPipe(this.#fd, false);
        continue;
      }
      if (must(count, 'read', self) === 0) this.#ended = true;
      this.#start = 0;
      this.#end = count;
      if (count > 0) this.#watch.read?.(this.#buffer.subarray(0, count));
      return count > 0;
    }
    return false;
  }
}

const zeros = Buffer.alloc(2 ** 16);

export class ByteSink {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafe(size);
  #length = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + this.room());
      this.#buffer.set(part, this.#length);
      this.#length += part.length;
      at += part.length;
    }
  }

  zeros(count: number): void {
    for (let left = count; left > 0; left -= zeros.length) this.write(zeros.subarray(0, Math.min(left, zeros.length)));
  }

  /** Bytes of a file, from there on: as many as there are, up to `count`. */
  copy(file: number, offset: number, count: number, path: Uint8Array): number {
    let done = 0;
    while (done < count) {
      const room = Math.min(count - done, this.room());
      const read = must(native().files.read(file, this.#buffer, this.#length, room, offset + done), 'pread64', path);
      if (read === 0) break;
      this.#length += read;
      done += read;
    }
    return done;
  }

  flush(): void {
    for (let at = 0; at < this.#length; ) {
      const count = native().files.write(this.#fd, this.#buffer, at, this.#length - at, -1);
      if (count === -k.EAGAIN) awaitPipe(this.#fd, true);
      else at += must(count, 'write', self);
    }
    this.#length = 0;
  }

  room(): number {
    if (this.#length === size) this.flush();
    return size - this.#length;
  }
}
