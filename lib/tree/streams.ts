import { native } from '../native.js';
import * as k from '../plan/constants.js';
import { must, self } from './files.js';

// Bytes from and to a pipe (or a file), on the side of the thread that does the work.

export const pieceSize = 2 ** 18;
/** Milliseconds after which a waiting thread looks whether it has been told to end: Worker.terminate() cannot interrupt a system call. */
const patience = 200;

function awaitPipe(fd: number, forWriting: boolean): void {
  while (must(native().files.wait(fd, forWriting, patience), 'poll', self) === 0);
}

/** How many bytes have come; 0: it is the end. */
export function readInto(room: Buffer, fd: number): number {
  for (;;) {
    const count = native().files.read(fd, room, 0, room.length, -1);
    if (count === -k.EAGAIN) awaitPipe(fd, false);
    else return must(count, 'read', self);
  }
}

function writeAll(fd: number, bytes: Buffer, length: number): void {
  for (let at = 0; at < length; ) {
    const count = native().files.write(fd, bytes, at, length - at, -1);
    if (count === -k.EAGAIN) awaitPipe(fd, true);
    else at += must(count, 'write', self);
  }
}

/** What a descriptor has, piece by piece: each is good until the next call. */
export function piecesIn(fd: number): () => Buffer | undefined {
  const buffer = Buffer.allocUnsafe(pieceSize);
  return () => {
    const length = readInto(buffer, fd);
    return length === 0 ? undefined : buffer.subarray(0, length);
  };
}

/** Takes pieces: some room, and then how much of it was filled. */
export interface Sink {
  room(): Buffer;
  put(length: number): void;
  end(): void;
}

/** Whose other end sees the end of it when it is closed. */
export class PipeEnd implements Sink {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafe(pieceSize);

  constructor(fd: number) {
    this.#fd = fd;
    native().files.preparePipe(fd, 2 ** 20);
  }

  room(): Buffer {
    return this.#buffer;
  }

  put(length: number): void {
    writeAll(this.#fd, this.#buffer, length);
  }

  end(): void {}
}

export class ByteSource {
  readonly #pieces: () => Buffer | undefined;
  /** Is told each byte as it is used, once and in their order. */
  readonly #taken: ((bytes: Buffer) => void) | undefined;
  #piece: Buffer | undefined = self;
  #start = 0;

  constructor(pieces: () => Buffer | undefined, taken?: (bytes: Buffer) => void) {
    this.#pieces = pieces;
    this.#taken = taken;
  }

  /** At least one byte and at most `most`, until the next call; undefined at the end. */
  some(most: number): Buffer | undefined {
    if (this.#start === this.#piece?.length) {
      this.#piece = this.#pieces();
      this.#start = 0;
    }
    if (!this.#piece) return undefined;
    const bytes = this.#piece.subarray(this.#start, this.#start + most);
    this.#start += bytes.length;
    this.#taken?.(bytes);
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
}

const zeros = Buffer.alloc(2 ** 16);

export class ByteSink {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafe(pieceSize);
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
    writeAll(this.#fd, this.#buffer, this.#length);
    this.#length = 0;
  }

  room(): number {
    if (this.#length === pieceSize) this.flush();
    return pieceSize - this.#length;
  }
}
