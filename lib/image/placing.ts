import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { chainIdOf, type Digest } from './digest.js';
import type { ReceivedLayer } from './incoming-layer.js';
import type { Manifest } from './manifest.js';
import { putInPlace, putRecord, type StoreDirectory } from './store-directory.js';
import type { Workspace } from './workspace.js';

// From a workspace into the store: all within `lock.adding`, first what is referred to.

export async function placeBlob(store: StoreDirectory, digest: Digest, file: string): Promise<void> {
  if (!existsSync(store.blob(digest))) await putInPlace(file, store.blob(digest));
}

export async function placeLayer({ store, lock, newPath }: Placing, { digest, tar, blobFile, directory }: ReceivedLayer): Promise<void> {
  lock.lease(digest);
  // Another process may have been as fast.
  if (hasLayer(store, digest)) return;
  if (blobFile !== undefined) await placeBlob(store, tar.digest, blobFile);
  await putRecord(store.tar(digest), tar, newPath());
  try {
    await putInPlace(directory, store.layer(digest));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
    // The same tree, of one that was killed here, or is as far as this one. It may have come compressed.
    if (blobFile === undefined) await putInPlace(join(directory, 'recipe'), store.recipe(digest));
  }
}

export const hasLayer = (store: StoreDirectory, digest: Digest): boolean => existsSync(store.layer(digest)) && existsSync(store.tar(digest));

/** The nodes of these layers, base first; the uppermost one. */
export async function placeChain({ store, newPath }: Placing, layers: readonly Digest[]): Promise<Digest | undefined> {
  let parent: Digest | undefined;
  for (const layer of layers) {
    const chainId = chainIdOf(parent, layer);
    if (!existsSync(store.chain(chainId))) await putRecord(store.chain(chainId), parent === undefined ? { layer } : { layer, parent }, newPath());
    parent = chainId;
  }
  return parent;
}

export interface NewImage {
  readonly digest: Digest;
  readonly manifest: Manifest;
  readonly manifestFile: string;
  readonly configFile: string;
  readonly layers: readonly Digest[];
  readonly name: string | undefined;
}

export async function placeImage(place: Placing, image: NewImage): Promise<void> {
  const { store, newPath } = place;
  const { digest, manifest, layers, name } = image;
  await placeChain(place, layers);
  await placeBlob(store, manifest.config.digest, image.configFile);
  await placeBlob(store, digest, image.manifestFile);
  if (!existsSync(store.image(digest))) await putRecord(store.image(digest), { mediaType: manifest.mediaType, layers }, newPath());
  if (name !== undefined) await putRecord(store.name(name), { name, image: digest }, newPath());
}

export interface Placing {
  readonly store: StoreDirectory;
  readonly lock: Workspace['lock'];
  readonly newPath: () => string;
}
