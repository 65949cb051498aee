import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { ImageError } from '../errors.js';
import { native } from '../native.js';
import { must, self } from './files.js';

// How a tar is made again, bit by bit, of the tree that it was extracted to: what is not the content of a file (headers, padding, what follows the end)
// as it was, and for the rest which part of which file it is. Records, one behind the other:
//
//   L  length           and so many bytes of the tar
//   F  size offset length path-length   and the path: that part of a file of that size
//   E  length of the tar
//
// Numbers have 64 bits, the lowest byte first. It is stored in blocks, each as its compressed length (32 bits) and as raw deflate (RFC 1951): headers
// are alike, and take a tenth of their room. A block can be read without those before it in memory, so a tar of millions of entries takes none.

const literal = 0x4c;
const fromFile = 0x46;
const end = 0x45;

/** Of records in a block, before they are compressed. */
const blockBytes = 2 ** 18;

export interface FilePart {
  /** In the tree, without a slash at either end. */
  readonly path: Buffer;
  /** Of the whole file. */
  readonly size: number;
  readonly offset: number;
  readonly length: number;
}

export class RecipeWriter {
  readonly #fd: number;
  readonly #block = Buffer.allocUnsafe(blockBytes);
  #length = 0;
  #position = 0;
  #tarLength = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  bytes(bytes: Uint8Array): void {
    this.#head(literal, bytes.length);
    this.#put(bytes);
    this.#tarLength += bytes.length;
  }

  file({ path, size, offset, length }: FilePart): void {
    this.#head(fromFile, size, offset, length, path.length);
    this.#put(path);
    this.#tarLength += length;
  }

  /** Nothing can be written after it. */
  end(): void {
    this.#head(end, this.#tarLength);
    this.#flush();
  }

  #head(kind: number, ...numbers: number[]): void {
    const head = Buffer.allocUnsafe(1 + 8 * numbers.length);
    head[0] = kind;
    for (const [index, value] of numbers.entries()) head.writeBigUInt64LE(BigInt(value), 1 + 8 * index);
    this.#put(head);
  }

  #put(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + blockBytes - this.#length);
      this.#block.set(part, this.#length);
      this.#length += part.length;
      at += part.length;
      if (this.#length === blockBytes) this.#flush();
    }
  }

  #flush(): void {
    const packed = deflateRawSync(this.#block.subarray(0, this.#length), { level: 1 });
    const stored = Buffer.allocUnsafe(4 + packed.length);
    stored.writeUInt32LE(packed.length);
    packed.copy(stored, 4);
    for (let at = 0; at < stored.length; ) at += must(native().files.write(this.#fd, stored, at, stored.length - at, this.#position + at), 'pwrite64', self);
    this.#position += stored.length;
    this.#length = 0;
  }
}

export type RecipeRecord = { readonly bytes: number } | FilePart;

/** Whatever it reads is damaged perhaps: it throws then, and takes no more memory than for a good one. */
export class RecipeReader {
  readonly #fd: number;
  #block: Buffer = self;
  #at = 0;
  #position = 0;
  #tarLength = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The next record; of a literal only its length, and its bytes have to be taken by `some`. undefined at the end. */
  next(): RecipeRecord | undefined {
    const kind = this.#exactly(1)[0];
    if (kind === literal) {
      const bytes = this.#number();
      this.#tarLength += bytes;
      return { bytes };
    }
    if (kind === fromFile) {
      const [size, offset, length, pathLength] = [this.#number(), this.#number(), this.#number(), this.#number()];
      if (pathLength > 4095) throw damaged();
      this.#tarLength += length;
      return { path: this.#exactly(pathLength), size, offset, length };
    }
    if (kind !== end || this.#number() !== this.#tarLength || this.#at !== this.#block.length) throw damaged();
    return undefined;
  }

  /** At least one byte and at most `most`, until the next call. */
  some(most: number): Buffer {
    if (this.#at === this.#block.length) this.#load();
    const bytes = this.#block.subarray(this.#at, this.#at + most);
    this.#at += bytes.length;
    return bytes;
  }

  #number(): number {
    const value = this.#exactly(8).readBigUInt64LE();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged();
    return Number(value);
  }

  #exactly(count: number): Buffer {
    const bytes = Buffer.allocUnsafe(count);
    for (let filled = 0; filled < count; ) filled += this.some(count - filled).copy(bytes, filled);
    return bytes;
  }

  #load(): void {
    const length = this.#stored(4).readUInt32LE();
    // Deflate makes nothing longer by more than this.
    if (length > 2 * blockBytes) throw damaged();
    try {
      this.#block = inflateRawSync(this.#stored(length), { maxOutputLength: blockBytes });
    } catch (cause) {
      if ((cause as { code?: string }).code === code) throw cause;
      throw damaged();
    }
    if (this.#block.length === 0) throw damaged();
    this.#at = 0;
  }

  #stored(count: number): Buffer {
    const bytes = Buffer.allocUnsafe(count);
    for (let filled = 0; filled < count; ) {
      const read = must(native().files.read(this.#fd, bytes, filled, count - filled, this.#position), 'pread64', self);
      if (read === 0) throw damaged();
      filled += read;
      this.#position += read;
    }
    return bytes;
  }
}

const code = 'ERR_CLOISTER_STORE';
const damaged = (): Error => new ImageError(code, 'the recipe is damaged');
