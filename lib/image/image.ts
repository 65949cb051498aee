import { readFileSync } from 'node:fs';
import { ImageError } from '../errors.js';
import * as check from '../spawn/validate.js';
import { harmless } from '../text.js';
import { chainIdOf, type Digest, digestOf, mismatch } from './digest.js';
import { type Layer, layerAt } from './layer.js';
import { type Configuration, type Manifest, parseConfiguration, parseManifest } from './manifest.js';
import type { StoreDirectory } from './store-directory.js';
import type { ImageConfig } from './types.js';
import type { Workspace } from './workspace.js';

/** An image of a store. `spawnIsolated(…, { rootfs: image })` runs on a new writable layer above its layers. */
export class Image {
  declare readonly name?: string;
  /** Of its manifest. */
  readonly digest: string;
  readonly config: ImageConfig;
  /** Base first. */
  readonly layers: readonly Layer[];

  /** @internal */
  constructor(store: StoreDirectory, digest: Digest, name: string | undefined) {
    const record = store.imageRecord(digest);
    if (!record) missingImage(digest, store);
    if (name !== undefined) this.name = name;
    this.digest = digest;
    this.config = configurationOf(store, manifestOf(store, digest, record.mediaType)).config;
    let chainId: Digest | undefined;
    for (const layer of record.layers) chainId = chainIdOf(chainId, layer);
    const layers: Layer[] = [];
    for (let at = chainId && layerAt(store, chainId); at; at = at.parent) layers.unshift(at);
    this.layers = Object.freeze(layers);
  }

  /** Entrypoint and (args, else cmd): image-spec, config.md. Throws ERR_CLOISTER_NO_PROGRAM if the image names no command. */
  argv(args?: readonly string[]): [command: string, ...args: string[]] {
    if (args !== undefined) check.list(args, 'args', check.text);
    const [command, ...rest] = [...(this.config.Entrypoint ?? []), ...(args ?? this.config.Cmd ?? [])];
    if (command !== undefined && command !== '') return [command, ...rest];
    throw new ImageError('ERR_CLOISTER_NO_PROGRAM', `the image ${harmless(this.name ?? this.digest)} names no command: it has neither Entrypoint nor Cmd`, {
      step: 'choose the program',
      hint: "Name one: image.argv(['/bin/sh']).",
    });
  }
}

/** It stays for as long as the workspace is open. */
export function leaseImage({ store, lock }: Workspace, image: Image): Promise<void> {
  return lock.adding(async () => {
    if (!store.imageRecord(image.digest as Digest)) missingImage(image.digest, store);
    for (const { digest } of image.layers) lock.lease(digest as Digest);
  });
}

/** A document of an image, as it is in the store. What is on disk may have been damaged: it is checked each time. */
export function readBlob(store: StoreDirectory, digest: Digest): Buffer {
  const path = store.blob(digest);
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    throw new ImageError('ERR_CLOISTER_NOT_FOUND', `the store has no blob ${digest}: ${(cause as Error).message}`, { step: 'read the image', path, cause });
  }
  const found = digestOf(bytes);
  if (found !== digest) throw mismatch('a blob of the store', digest, found, path);
  return bytes;
}

export function manifestOf(store: StoreDirectory, digest: Digest, mediaType: string): Manifest {
  return parseManifest(readBlob(store, digest), mediaType);
}

export function configurationOf(store: StoreDirectory, manifest: Manifest): Configuration {
  return parseConfiguration(readBlob(store, manifest.config.digest));
}

export function missingImage(which: string, store: StoreDirectory): never {
  store.check();
  throw new ImageError('ERR_CLOISTER_NOT_FOUND', `there is no image ${which} in ${store.path}`, {
    step: 'find the image',
    path: store.path,
    hint: 'images() lists what there is; names are exactly those that were given.',
  });
}
