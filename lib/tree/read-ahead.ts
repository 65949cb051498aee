import { createHash } from 'node:crypto';
import { pipeline } from 'node:stream/promises';
import { type Compression, decompressor, toldOf } from './compression.js';
import { type Ring, RingEnd } from './ring.js';
import { PipeEnd, piecesIn, readInto, type Sink } from './streams.js';
import type { TaskDescriptors } from './task.js';

// One thread reads a tar, decompresses and hashes it, while another one (or a process in other namespaces) makes files of it: of a large layer each of
// the two is about half of the work. What is hashed is what is extracted; a file that is read twice can be another one the second time.

export interface ReadAheadRequest {
  readonly compression: Compression;
  /** undefined: into the pipe that is lent. */
  readonly ring: Ring | undefined;
}

/** sha256 of the tar, in hexadecimal digits. A module of its own, which loads nothing that it has no need of: its thread is often a new one. */
export async function run({ compression, ring }: ReadAheadRequest, { input: given, lent: [pipe] }: TaskDescriptors): Promise<string> {
  const input = given as number;
  const sink: Sink = ring ? new RingEnd(ring) : new PipeEnd(pipe as number);
  const hash = createHash('sha256');
  const put = (piece: Buffer): void => {
    sink.put(piece.length);
    hash.update(piece);
  };
  const undo = await decompressor(compression);
  if (!undo) {
    for (let room = sink.room(), length = readInto(room, input); length > 0; room = sink.room(), length = readInto(room, input)) put(room.subarray(0, length));
  } else {
    const pieces = piecesIn(input);
    try {
      await pipeline(copies(pieces), undo, async (stream: AsyncIterable<Buffer>) => {
        for await (const piece of stream) {
          for (let at = 0; at < piece.length; ) {
            const room = sink.room();
            const length = piece.copy(room, 0, at);
            put(room.subarray(0, length));
            at += length;
          }
        }
      });
    } catch (cause) {
      throw toldOf(compression, cause);
    }
    // What follows the last member of a gzip file belongs to the file, if to nothing else.
    while (pieces());
  }
  sink.end();
  return hash.digest('hex');
}

/** A stream holds more than one of them at a time. */
function* copies(pieces: () => Buffer | undefined): Generator<Buffer> {
  for (let piece = pieces(); piece; piece = pieces()) yield Buffer.from(piece);
}
