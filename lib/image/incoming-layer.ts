import { type FileHandle, mkdir, open, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ImageError } from '../errors.js';
import { type Compression, compressionOf, peek } from '../tree/compression.js';
import { type ExtractOptions, type ExtractReport, extract } from '../tree/tree.js';
import { type Digest, Meter, mismatch } from './digest.js';
import { layerMediaTypes } from './media-types.js';
import type { LayerRecord, TarRecord } from './store-directory.js';
import type { Workspace } from './workspace.js';

/** An open file is read from its beginning. */
export type LayerSource = Readable | FileHandle;

/** A layer's tar, compressed or not, on its way into the store, and what is known of it. */
export interface IncomingLayer {
  /** It is used up, whatever the outcome. */
  readonly source: LayerSource;
  /** Of the bytes as they come. */
  readonly blob?: { readonly digest: Digest; readonly size: number } | undefined;
  /** Of the uncompressed tar. */
  readonly diffId?: Digest | undefined;
  readonly sizeLimit?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: ((bytes: number) => void) | undefined;
}

/** Complete, checked, and still in the workspace. */
export interface ReceivedLayer {
  readonly digest: Digest;
  readonly tar: TarRecord;
  /** undefined: the directory has a recipe. */
  readonly blobFile: string | undefined;
  readonly directory: string;
}

/**
 * One pass: the bytes are hashed and kept as they come, decompressed, hashed again, and extracted, all at once. What turns out to
 * be another layer than was announced has only been in the workspace.
 */
export async function receiveLayer(workspace: Workspace, layer: IncomingLayer): Promise<ReceivedLayer> {
  const { source, signal } = layer;
  // Whoever waits for its first bytes, or for more of them, hears of it by that.
  const onAbort = (): void => void (source instanceof Readable && source.destroy());
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    signal?.throwIfAborted();
    return await received(workspace, layer);
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    if (source instanceof Readable) source.destroy();
    else await source.close();
  }
}

async function received(workspace: Workspace, layer: IncomingLayer): Promise<ReceivedLayer> {
  const { compression, whole } = await begun(layer);
  const place: Place = { blobFile: workspace.newPath(), directory: workspace.newPath() };
  await mkdir(place.directory);
  await mkdir(join(place.directory, 'tree'));
  const { report, blob } = compression === 'none' ? await takePlain(layer, whole, place) : await takeCompressed(layer, whole as Readable, compression, place);
  const digest: Digest = `sha256:${report.tar.digest}`;
  const found = blob ?? { digest, size: report.tar.size };
  if (layer.blob && (found.digest !== layer.blob.digest || found.size !== layer.blob.size)) {
    throw mismatch('a layer', `${layer.blob.digest} of ${layer.blob.size} bytes`, `${found.digest} of ${found.size} bytes`);
  }
  if (layer.diffId !== undefined && digest !== layer.diffId) throw mismatch("a layer's uncompressed tar", layer.diffId, digest);
  const record: LayerRecord = {
    sizeBytes: report.tar.size,
    isOpaque: report.isOpaque,
    owners: report.owners,
    skipped: report.skipped.map(({ path }) => path),
    unrecorded: report.unrecorded.map(({ path, what }) => `${path}: ${what}`),
  };
  await writeFile(join(place.directory, 'layer.json'), JSON.stringify(record), { mode: 0o600 });
  const blobFile = report.tar.kept === 'recipe' ? undefined : place.blobFile;
  return { digest, tar: { ...found, mediaType: layerMediaTypes[compression] }, blobFile, directory: place.directory };
}

interface Place {
  readonly blobFile: string;
  readonly directory: string;
}

interface Taken {
  readonly report: ExtractReport;
  /** undefined: it is the tar itself. */
  readonly blob?: { readonly digest: Digest; readonly size: number };
}

/** What it is compressed by, and all of it: the file itself where its tar can be read from that, and nobody wants to hear how far it is. */
async function begun({ source, blob, onBytes }: IncomingLayer): Promise<{ compression: Compression; whole: Readable | number }> {
  const stream = (): Readable => (source instanceof Readable ? source : source.createReadStream({ highWaterMark: 2 ** 18, autoClose: false }));
  const { head, whole } = source instanceof Readable ? await peek(source, 6) : { head: await headOf(source), whole: undefined };
  const compression = compressionOf(head);
  if (compression === undefined) {
    throw new ImageError('ERR_CLOISTER_LAYER', 'the layer is compressed by xz or bzip2; gzip, zstd or no compression is needed', { step: 'import the layer' });
  }
  if (!(source instanceof Readable) && compression === 'none' && !onBytes) {
    if (blob && (await source.stat()).size > blob.size) throw tooLong(blob.size);
    return { compression, whole: source.fd };
  }
  return { compression, whole: whole ?? stream() };
}

async function headOf(file: FileHandle): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(6), 0, 6, 0);
  return buffer.subarray(0, bytesRead);
}

const tooLong = (size: number): ImageError => mismatch('a layer', `${size} bytes`, 'more');

const optionsOf = ({ signal, sizeLimit }: IncomingLayer, compression: Compression): ExtractOptions => ({ digest: { compression }, signal, sizeLimit });

/** A recipe is kept, or else, by way of the same thread, the tar. */
async function takePlain(layer: IncomingLayer, whole: Readable | number, { blobFile, directory }: Place): Promise<Taken> {
  const recipeFile = join(directory, 'recipe');
  await using recipe = await open(recipeFile, 'wx+', 0o600);
  await using copy = await open(blobFile, 'wx', 0o600);
  const options = { ...optionsOf(layer, 'none'), keep: { recipe: recipe.fd, whole: copy.fd } };
  const tree = join(directory, 'tree');
  const meter = meterOf(layer, false);
  const report = await (typeof whole === 'number'
    ? extract(whole, tree, options)
    : bothEnds(extract(meter, tree, options), pipeline(whole, meter, layer.signal ? { signal: layer.signal } : {}), layer.signal));
  await unlink(report.tar.kept === 'recipe' ? blobFile : recipeFile);
  return { report };
}

async function takeCompressed(layer: IncomingLayer, whole: Readable, compression: Compression, { blobFile, directory }: Place): Promise<Taken> {
  await using kept = await open(blobFile, 'wx', 0o600);
  const meter = meterOf(layer, true);
  const copy = new Transform({
    transform: (chunk: Buffer, _encoding, done) => void kept.writeFile(chunk).then(() => done(null, chunk), done),
  });
  const report = await bothEnds(
    extract(copy, join(directory, 'tree'), optionsOf(layer, compression)),
    pipeline(whole, meter, copy, layer.signal ? { signal: layer.signal } : {}),
    layer.signal,
  );
  return { report, blob: { digest: meter.digest(), size: meter.bytes } };
}

const meterOf = ({ blob, onBytes }: IncomingLayer, hashes: boolean): Meter =>
  new Meter((bytes) => {
    if (blob && bytes > blob.size) throw tooLong(blob.size);
    onBytes?.(bytes);
  }, hashes);

/** Each end of a stream fails when the other does: what is told is the cause, and not that the other end has gone. */
export async function bothEnds<A>(reading: Promise<A>, feeding: Promise<void>, signal: AbortSignal | undefined): Promise<A> {
  const [read, fed] = await Promise.allSettled([reading, feeding]);
  if (read.status === 'fulfilled' && fed.status === 'fulfilled') return read.value;
  if (signal?.aborted) throw signal.reason;
  const reasons = [fed, read].flatMap((result) => (result.status === 'rejected' ? [result.reason as NodeJS.ErrnoException] : []));
  throw reasons.find(({ code }) => code !== 'EPIPE' && code !== 'ERR_STREAM_PREMATURE_CLOSE') ?? reasons[0];
}
