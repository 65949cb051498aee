import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { Readable } from 'node:stream';
import { ImageError } from '../errors.js';
import { compressionOf, decompressor, peek } from '../tree/compression.js';
import { assemble } from '../tree/tree.js';
import { type Digest, hexOf } from './digest.js';
import { missingLayer } from './layer.js';
import type { StoreDirectory, TarRecord } from './store-directory.js';

// A layer that came compressed has the blob that it came as: no compressor makes another's bytes. Of one that came uncompressed, every byte
// is in its tree already, or in its recipe (recipe.ts): the tar is put together of them when it is asked for. In stores that older versions have
// made, and for a tar that has a name twice, that one has a blob, too.

const piece = { highWaterMark: 2 ** 18 };

/** Whether there are the bytes that an image names by this digest. */
export function hasBlob(store: StoreDirectory, digest: Digest): boolean {
  return existsSync(store.blob(digest)) || existsSync(store.recipe(digest));
}

/** Fails at its end if they are others. */
export function blobOf(store: StoreDirectory, digest: Digest): Readable {
  if (existsSync(store.blob(digest))) return createReadStream(store.blob(digest), piece);
  if (existsSync(store.recipe(digest))) return assembled(store, digest);
  throw new ImageError('ERR_CLOISTER_NOT_FOUND', `the store has no blob ${digest}`, { step: 'read the image', path: store.blob(digest) });
}

/** The uncompressed tar of a layer. */
export async function tarOf(store: StoreDirectory, layer: Digest): Promise<Readable> {
  if (existsSync(store.recipe(layer))) return assembled(store, layer);
  const tar = store.tarRecord(layer) ?? missingLayer(layer, store);
  return await tarInBlob(store, tar);
}

export async function tarInBlob(store: StoreDirectory, tar: TarRecord): Promise<Readable> {
  const { head, whole } = await peek(blobOf(store, tar.digest), 6);
  const undo = await decompressor(compressionOf(head) ?? 'none');
  return undo ? whole.on('error', (error) => undo.destroy(error)).pipe(undo) : whole;
}

/** What has been read of it is not to be used before its end. */
export function assembled(store: StoreDirectory, layer: Digest): Readable {
  const changed = (how: string, cause?: unknown): ImageError =>
    new ImageError('ERR_CLOISTER_STORE', `the files of the layer ${layer} are not those of its tar any more: ${how}`, {
      step: 'put the tar of a layer together',
      path: store.layer(layer),
      cause,
      hint: 'Remove the layer, and import it again.',
    });
  async function* checked(): AsyncGenerator<Buffer, void, undefined> {
    const hash = createHash('sha256');
    try {
      for await (const bytes of assemble(store.tree(layer), store.recipe(layer))) {
        hash.update(bytes);
        yield bytes;
      }
    } catch (cause) {
      throw changed((cause as Error).message, cause);
    }
    const found = hash.digest('hex');
    if (found !== hexOf(layer)) throw changed(`they make sha256:${found}`);
  }
  return Readable.from(checked(), { objectMode: false });
}
