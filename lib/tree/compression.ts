import { Readable, type Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import { ImageError } from '../errors.js';

export type Compression = 'none' | 'gzip' | 'zstd';

/** By the first bytes: media types lie, and a bare file has none. RFC 1952 2.3.1, RFC 8878 3.1. */
export function compressionOf(head: Uint8Array): Compression | undefined {
  const begins = (...bytes: number[]): boolean => bytes.every((byte, index) => head[index] === byte);
  if (begins(0x1f, 0x8b)) return 'gzip';
  if (begins(0x28, 0xb5, 0x2f, 0xfd)) return 'zstd';
  // A skippable frame: zstd:chunked and pzstd begin with one.
  if (head.length >= 4 && (head[0] as number) >= 0x50 && (head[0] as number) <= 0x5f && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18) return 'zstd';
  if (begins(0xfd, 0x37, 0x7a, 0x58, 0x5a) || begins(0x42, 0x5a, 0x68)) return undefined;
  return 'none';
}

/** The head of a stream, and all of it. */
export async function peek(source: Readable, length: number): Promise<{ head: Buffer; whole: Readable }> {
  const chunks: Buffer[] = [];
  let size = 0;
  const iterator = source[Symbol.asyncIterator]() as AsyncIterator<Buffer | string>;
  while (size < length) {
    const { value, done } = await iterator.next();
    if (done) break;
    const chunk = typeof value === 'string' ? Buffer.from(value) : value;
    chunks.push(chunk);
    size += chunk.length;
  }
  const all = async function* (): AsyncGenerator<Buffer | string> {
    try {
      yield* chunks;
      for (;;) {
        const { value, done } = await iterator.next();
        if (done) return;
        yield value;
      }
    } finally {
      await iterator.return?.();
    }
  };
  return { head: Buffer.concat(chunks).subarray(0, length), whole: Readable.from(all(), { objectMode: false }) };
}

/** Each piece goes through a thread of libuv's pool and back: with zlib's own size of 16 KiB that takes longer than the work. */
const pieceSize = 2 ** 18;

/** undefined: there is nothing to undo. */
export async function decompressor(compression: Compression): Promise<Transform | undefined> {
  if (compression === 'gzip') return zlib.createGunzip({ chunkSize: pieceSize });
  if (compression === 'zstd') return await zstd();
  return undefined;
}

/** Levels above this one take twice the time for 5 % less: 69 against 34 MB/s here for level 6. */
export const compressor = (): Transform => zlib.createGzip({ level: 3 });

/** Node's own from 22.15 on, which is some five times as fast. */
async function zstd(): Promise<Transform> {
  const own = (zlib as { createZstdDecompress?: () => Transform }).createZstdDecompress;
  return own ? own() : new (await import('./zstd.js')).ScriptedZstd();
}

/** What a decompressor has thrown, in our words: zlib's errors have codes of their own. All else is left as it is. */
export function toldOf(compression: Compression, cause: unknown, archive?: string): unknown {
  if (!/^Z(STD)?_/.test((cause as NodeJS.ErrnoException).code ?? '')) return cause;
  const why = `${compression} stream is broken: ${(cause as Error).message}`;
  return archive === undefined
    ? new ImageError('ERR_CLOISTER_LAYER', `a layer's ${why}`, { step: 'decompress the layer', cause })
    : new ImageError('ERR_CLOISTER_IMAGE', `${archive}: the ${why}`, { step: 'read the archive', path: archive, cause });
}
