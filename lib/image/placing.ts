import { existsSync } from 'node:fs';
import { rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { chainIdOf, type Digest, digestOf } from './digest.js';
import type { ReceivedLayer } from './incoming-layer.js';
import type { Manifest } from './manifest.js';
import { type StoreDirectory, syncDirectory } from './store-directory.js';
import type { Workspace } from './workspace.js';

// From a workspace into the store: all within `lock.adding`, first what is referred to.

export async function placeBlob(store: StoreDirectory, digest: Digest, file: string): Promise<void> {
  if (!existsSync(store.blob(digest))) await rename(file, store.blob(digest));
}

export async function placeLayer({ store, lock, newPath }: Placing, { digest, tar, blobFile, directory }: ReceivedLayer): Promise<void> {
  lock.lease(digest);
  // Another process may have been as fast.
  if (hasLayer(store, digest)) return;
  // The layer was lost; its record must not speak for a new one that is not on the disk yet.
  if (existsSync(store.tar(digest)) && !existsSync(store.layer(digest))) {
    await unlink(store.tar(digest));
    await syncDirectory(join(store.tar(digest), '..'));
  }
  if (blobFile !== undefined) await placeBlob(store, tar.digest, blobFile);
  try {
    await rename(directory, store.layer(digest));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
    // The same tree, of one that was killed here, or is as far as this one. It may have come compressed.
    if (blobFile === undefined) await rename(join(directory, 'recipe'), store.recipe(digest));
  }
  await store.put('tars', digest, tar, newPath());
}

export const hasLayer = (store: StoreDirectory, digest: Digest): boolean => existsSync(store.layer(digest)) && store.has('tars', digest);

/** The nodes of these layers, base first; the uppermost one. */
export async function placeChain({ store, newPath }: Placing, layers: readonly Digest[]): Promise<Digest | undefined> {
  let parent: Digest | undefined;
  for (const layer of layers) {
    const chainId = chainIdOf(parent, layer);
    if (!store.has('chains', chainId)) await store.put('chains', chainId, parent === undefined ? { layer } : { layer, parent }, newPath());
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
  if (!store.has('images', digest)) await store.put('images', digest, { mediaType: manifest.mediaType, layers }, newPath());
  if (name !== undefined) await store.put('names', digestOf(name), { name, image: digest }, newPath());
}

export interface Placing {
  readonly store: StoreDirectory;
  readonly lock: Workspace['lock'];
  readonly newPath: () => string;
}
