import { Transform, type TransformCallback } from 'node:stream';
import { Decompress } from 'fzstd';
import { ImageError } from '../errors.js';

// zstd where Node does not have it (before 22.15). The decoder is given one block at a time: it would put out all that a piece of input has in it
// at once, and four bytes can be 128 KiB. And it moves the whole window with each block, so the window must not be large. RFC 8878.

/** RFC 8878 3.1.1.1.2: what every decoder should take. `zstd` uses more from level 20 (--ultra) on. */
const largestWindow = 2 ** 23;
/** 3.1.1.2.3, Block_Maximum_Size. */
const largestBlock = 2 ** 17;

interface Frame {
  readonly decoder: Decompress;
  readonly checksum: number;
}

export class ScriptedZstd extends Transform {
  #rest: Buffer = Buffer.alloc(0);
  /** Bytes of a frame that is none of ours. */
  #skip = 0;
  #frame: Frame | undefined;
  #isFull = false;
  #goOn: (() => void) | undefined;

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#work(done);
  }

  override _flush(done: TransformCallback): void {
    done(this.#frame || this.#skip > 0 || this.#rest.length > 0 ? broken('it is cut short') : null);
  }

  override _read(size: number): void {
    this.#isFull = false;
    const goOn = this.#goOn;
    this.#goOn = undefined;
    if (goOn) goOn();
    else super._read(size);
  }

  #work(done: TransformCallback): void {
    try {
      while (this.#step()) {
        if (!this.#isFull) continue;
        this.#goOn = () => this.#work(done);
        return;
      }
    } catch (error) {
      done(error instanceof ImageError ? error : broken((error as Error).message));
      return;
    }
    done();
  }

  /** false: more has to come first. */
  #step(): boolean {
    if (this.#skip > 0) {
      const taken = this.#take(Math.min(this.#skip, this.#rest.length)).length;
      this.#skip -= taken;
      return taken > 0;
    }
    return this.#frame ? this.#block(this.#frame) : this.#head();
  }

  #take(count: number): Buffer {
    const bytes = this.#rest.subarray(0, count);
    this.#rest = this.#rest.subarray(count);
    return bytes;
  }

  #head(): boolean {
    if (this.#rest.length < 8) return false;
    const magic = this.#rest.readUInt32LE(0);
    if ((magic & 0xfffffff0) >>> 0 === 0x184d2a50) {
      this.#skip = this.#rest.readUInt32LE(4);
      this.#take(8);
      return true;
    }
    if (magic !== 0xfd2fb528) throw broken('something else follows a frame');
    const flags = this.#rest.readUInt8(4);
    const singleSegment = (flags >> 5) & 1;
    const dictionaryBytes = [0, 1, 2, 4][flags & 3] as number;
    const sizeBytes = [singleSegment, 2, 4, 8][flags >> 6] as number;
    const length = 6 - singleSegment + dictionaryBytes + sizeBytes;
    if (this.#rest.length < length) return false;
    if (flags & 0b1000 || this.#rest.subarray(length - sizeBytes - dictionaryBytes, length - sizeBytes).some((byte) => byte !== 0))
      throw broken('it needs a dictionary, or a later version');
    const window = singleSegment ? contentSize(this.#rest.subarray(length - sizeBytes, length)) : windowSize(this.#rest.readUInt8(5));
    if (window > largestWindow) {
      throw new ImageError('ERR_CLOISTER_LAYER', `the layer's zstd stream needs a window of ${window} bytes; the most that is taken here is ${largestWindow}`, {
        step: 'decompress the layer',
        hint: "Node.js 22.15 and later take 128 MiB. Levels up to 19 of zstd, without '--long', need no more than 8.",
      });
    }
    const decoder = new Decompress((bytes) => {
      if (bytes.length > 0 && !this.push(bytes)) this.#isFull = true;
    });
    decoder.push(this.#take(length));
    this.#frame = { decoder, checksum: flags & 0b100 ? 4 : 0 };
    return true;
  }

  #block({ decoder, checksum }: Frame): boolean {
    if (this.#rest.length < 3) return false;
    const word = this.#rest.readUIntLE(0, 3);
    const [isLast, kind, size] = [(word & 1) === 1, (word >> 1) & 3, word >> 3];
    if (size > largestBlock || kind === 3) throw broken(`a block of kind ${kind} and ${size} bytes`);
    const length = 3 + (kind === 1 ? 1 : size) + (isLast ? checksum : 0);
    if (this.#rest.length < length) return false;
    // The decoder wants to know which block is the last one of all: it has a frame of its own.
    decoder.push(this.#take(length), isLast);
    if (isLast) this.#frame = undefined;
    return true;
  }
}

function windowSize(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

function contentSize(field: Buffer): number {
  if (field.length === 8) return Number(field.readBigUInt64LE());
  return field.readUIntLE(0, field.length) + (field.length === 2 ? 256 : 0);
}

function broken(why: string): ImageError {
  return new ImageError('ERR_CLOISTER_LAYER', `a layer's zstd stream is broken: ${why}`, { step: 'decompress the layer' });
}
