import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { Transform, type TransformCallback } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { describe, ImageError } from '../errors.js';

/** `sha256:` and 64 hexadecimal digits. image-spec, descriptor.md, "Digests". */
export type Digest = `sha256:${string}`;

const pattern = /^sha256:[0-9a-f]{64}$/;

export function isDigest(value: unknown): value is Digest {
  return typeof value === 'string' && pattern.test(value);
}

/** The specification registers sha512 too; nothing that makes images uses it, so it is refused and not half supported. */
export function checkDigest(value: unknown, what: string): Digest {
  if (isDigest(value)) return value;
  throw new ImageError('ERR_CLOISTER_IMAGE', `${what} is no sha256 digest: ${describe(value)}`, { step: 'read the image' });
}

export const hexOf = (digest: Digest): string => digest.slice('sha256:'.length);

export const digestOf = (bytes: string | Uint8Array): Digest => finish(createHash('sha256').update(bytes));

const finish = (hash: Hash): Digest => `sha256:${hash.digest('hex')}`;

/** ChainID of image-spec, config.md: a layer on those below it. */
export function chainIdOf(parent: Digest | undefined, diffId: Digest): Digest {
  return parent === undefined ? diffId : digestOf(`${parent} ${diffId}`);
}

/** Counts and hashes what passes; or only counts it. */
export class Meter extends Transform {
  readonly #hash: Hash | undefined;
  readonly #onBytes: ((bytes: number) => void) | undefined;
  bytes = 0;

  /** `onBytes` may throw: then the stream fails with that. */
  constructor(onBytes?: (bytes: number) => void, hashes = true) {
    super();
    this.#hash = hashes ? createHash('sha256') : undefined;
    this.#onBytes = onBytes;
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    this.bytes += chunk.length;
    this.#hash?.update(chunk);
    try {
      this.#onBytes?.(this.bytes);
      done(null, chunk);
    } catch (error) {
      done(error as Error);
    }
  }

  /** Once, at the end. */
  digest(): Digest {
    return finish(this.#hash as Hash);
  }
}

export async function digestOfFile(path: string): Promise<Digest> {
  const meter = new Meter();
  meter.resume();
  await pipeline(createReadStream(path, { highWaterMark: 2 ** 18 }), meter);
  return meter.digest();
}

export function mismatch(what: string, expected: string, got: string, path?: string): ImageError {
  return new ImageError('ERR_CLOISTER_DIGEST', `${what} is not what its digest or size says: ${expected} expected, ${got} found`, {
    step: 'check the digest',
    path,
    hint: 'It was cut short or changed on its way; nothing of it has been kept.',
  });
}
