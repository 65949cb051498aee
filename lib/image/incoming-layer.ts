import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ImageError } from '../errors.js';
import { extract } from '../tree/tree.js';
import { brokenCompression, type Compression, compressionOf, decompressor, peek } from './compression.js';
import { type Digest, Meter, mismatch } from './digest.js';
import { layerMediaTypes } from './media-types.js';
import { type LayerRecord, type TarRecord, writeSynced } from './store-directory.js';
import type { Workspace } from './workspace.js';

/** A layer's tar, compressed or not, on its way into the store, and what is known of it. */
export interface IncomingLayer {
  readonly source: Readable;
  /** Of the bytes as they come. */
  readonly blob?: { readonly digest: Digest; readonly size: number } | undefined;
  /** Of the uncompressed tar. */
  readonly diffId?: Digest | undefined;
  readonly sizeLimit?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: ((bytes: number) => void) | undefined;
}

/** Complete, synced, checked, and still in the workspace. */
export interface ReceivedLayer {
  readonly digest: Digest;
  readonly tar: TarRecord;
  readonly blobFile: string;
  readonly directory: string;
}

/**
 * One pass: the bytes are hashed and kept as they come, decompressed, hashed again, and extracted, all at once. What turns out to
 * be another layer than was announced has only been in the workspace.
 */
export async function receiveLayer(workspace: Workspace, layer: IncomingLayer): Promise<ReceivedLayer> {
  layer.signal?.throwIfAborted();
  const { head, whole } = await peek(layer.source, 6);
  const compression = compressionOf(head);
  if (compression === undefined) {
    layer.source.destroy();
    throw new ImageError('ERR_CLOISTER_LAYER', 'the layer is compressed by xz or bzip2; gzip, zstd or no compression is needed', { step: 'import the layer' });
  }
  const blobFile = workspace.newPath();
  const directory = workspace.newPath();
  await mkdir(join(directory, 'tree'), { recursive: true });
  const blobMeter = new Meter((bytes) => {
    if (layer.blob && bytes > layer.blob.size) throw mismatch('a layer', `${layer.blob.size} bytes`, 'more');
    layer.onBytes?.(bytes);
  });
  const limit = layer.sizeLimit;
  const tarMeter = new Meter((bytes) => {
    if (limit !== undefined && bytes > limit) {
      throw new ImageError('ERR_CLOISTER_LAYER', `the layer is bigger than sizeLimit: more than ${limit} bytes uncompressed`, { step: 'import the layer' });
    }
  });
  const { signal } = layer;
  const report = await bothEnds(
    extract(tarMeter, join(directory, 'tree'), { sync: true, signal, sizeLimit: limit }),
    spool(whole, blobMeter, blobFile, compression, tarMeter, signal),
    signal,
  );
  const found = { digest: blobMeter.digest(), size: blobMeter.bytes };
  if (layer.blob && (found.digest !== layer.blob.digest || found.size !== layer.blob.size)) {
    throw mismatch('a layer', `${layer.blob.digest} of ${layer.blob.size} bytes`, `${found.digest} of ${found.size} bytes`);
  }
  const digest = tarMeter.digest();
  if (layer.diffId !== undefined && digest !== layer.diffId) throw mismatch("a layer's uncompressed tar", layer.diffId, digest);
  const record: LayerRecord = {
    sizeBytes: tarMeter.bytes,
    isOpaque: report.isOpaque,
    owners: report.owners,
    skipped: report.skipped.map(({ path }) => path),
    unrecorded: report.unrecorded.map(({ path, what }) => `${path}: ${what}`),
  };
  await writeSynced(join(directory, 'layer.json'), JSON.stringify(record));
  return { digest, tar: { ...found, mediaType: layerMediaTypes[compression] }, blobFile, directory };
}

/** Each end of a stream fails when the other does: what is told is the cause, and not that the other end has gone. */
export async function bothEnds<A>(reading: Promise<A>, feeding: Promise<void>, signal: AbortSignal | undefined): Promise<A> {
  const [read, fed] = await Promise.allSettled([reading, feeding]);
  if (read.status === 'fulfilled' && fed.status === 'fulfilled') return read.value;
  if (signal?.aborted) throw signal.reason;
  const reasons = [fed, read].flatMap((result) => (result.status === 'rejected' ? [result.reason as NodeJS.ErrnoException] : []));
  throw reasons.find(({ code }) => code !== 'EPIPE' && code !== 'ERR_STREAM_PREMATURE_CLOSE') ?? reasons[0];
}

async function spool(source: Readable, meter: Meter, file: string, compression: Compression, tar: Meter, signal: AbortSignal | undefined): Promise<void> {
  const options = signal ? { signal } : {};
  const kept = await open(file, 'wx', 0o600);
  try {
    const copy = new Transform({
      transform: (chunk: Buffer, _encoding, done) => void kept.writeFile(chunk).then(() => done(null, chunk), done),
    });
    const unpacked = decompressor(compression);
    if (unpacked) await pipeline(source, meter, copy, unpacked, tar, options);
    else await pipeline(source, meter, copy, tar, options);
    await kept.sync();
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw code?.startsWith('Z_') || code?.startsWith('ZSTD_') ? brokenCompression(compression, cause) : cause;
  } finally {
    await kept.close();
  }
}
