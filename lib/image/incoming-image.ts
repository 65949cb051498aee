import { writeFile } from 'node:fs/promises';
import { ImageError } from '../errors.js';
import { harmless } from '../text.js';
import { type Digest, digestOf, mismatch } from './digest.js';
import { type LayerSource, receiveLayer } from './incoming-layer.js';
import { type Configuration, type Descriptor, type Manifest, mostJsonBytes, parseConfiguration, parseIndex, parseManifest } from './manifest.js';
import { dockerList, indexTypes, manifestTypes, ociIndex } from './media-types.js';
import { hasLayer, placeImage, placeLayer } from './placing.js';
import { choose } from './platform.js';
import type { Transfer } from './transfer-options.js';
import type { Workspace } from './workspace.js';

/** Where an image's parts come from: a layout's directory, a registry. Nothing that it gives is trusted. */
export interface ContentSource {
  /** A manifest, index or configuration. */
  document(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<Uint8Array>;
  layer(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<LayerSource>;
}

export type ReceiveOptions = Pick<Transfer, 'signal' | 'onProgress' | 'platform' | 'sizeLimit'>;

const layersAtOnce = 3;
/** An index of indexes is allowed; a chain of them is a trap. */
const deepest = 4;

/** What a descriptor announces, checked. */
async function documentOf(source: ContentSource, descriptor: Descriptor, signal: AbortSignal | undefined): Promise<Uint8Array> {
  if (descriptor.size > mostJsonBytes) {
    throw new ImageError('ERR_CLOISTER_IMAGE', `a document of ${descriptor.size} bytes is too big: ${harmless(descriptor.mediaType)}`, {
      step: 'read the image',
    });
  }
  const bytes = await source.document(descriptor, signal);
  const digest = digestOf(bytes);
  if (bytes.length !== descriptor.size || digest !== descriptor.digest) {
    throw mismatch('a document of the image', `${descriptor.digest} of ${descriptor.size} bytes`, `${digest} of ${bytes.length} bytes`);
  }
  return bytes;
}

export interface FoundImage {
  readonly digest: Digest;
  readonly manifestBytes: Uint8Array;
  readonly configBytes: Uint8Array;
  readonly manifest: Manifest;
  readonly configuration: Configuration;
}

/** From an index, or a manifest, to the image for the platform. */
export async function findImage(source: ContentSource, from: Descriptor, options: ReceiveOptions): Promise<FoundImage> {
  let descriptor = from;
  for (let depth = 0; indexTypes.includes(descriptor.mediaType); depth++) {
    if (depth === deepest) throw new ImageError('ERR_CLOISTER_IMAGE', `indexes are nested deeper than ${deepest}`, { step: 'read the image' });
    const index = parseIndex(await documentOf(source, descriptor, options.signal), descriptor.mediaType);
    descriptor = choose(index.manifests, options.platform);
  }
  if (!manifestTypes.includes(descriptor.mediaType)) {
    throw new ImageError('ERR_CLOISTER_IMAGE', `this is no image: its type is ${harmless(descriptor.mediaType)}`, {
      step: 'read the image',
      hint: `Taken are ${[...manifestTypes, ociIndex, dockerList].join(', ')}; Docker's schema 1 of before 2017 is not.`,
    });
  }
  const manifestBytes = await documentOf(source, descriptor, options.signal);
  const manifest = parseManifest(manifestBytes, descriptor.mediaType);
  const configBytes = await documentOf(source, manifest.config, options.signal);
  const configuration = parseConfiguration(configBytes);
  if (configuration.diffIds.length !== manifest.layers.length) {
    throw new ImageError('ERR_CLOISTER_IMAGE', `the manifest has ${manifest.layers.length} layers and the configuration ${configuration.diffIds.length}`, {
      step: 'read the image',
    });
  }
  return { digest: descriptor.digest, manifestBytes, configBytes, manifest, configuration };
}

/** The layers that are missing here, some at a time, and then the image. */
export async function receiveImage(
  workspace: Workspace,
  source: ContentSource,
  found: FoundImage,
  name: string | undefined,
  options: ReceiveOptions,
): Promise<void> {
  const { manifest, configuration } = found;
  const { onProgress } = options;
  const wanted = new Map(configuration.diffIds.map((diffId, index) => [diffId, manifest.layers[index] as Descriptor]));
  await atOnce([...wanted], layersAtOnce, options.signal, async ([diffId, descriptor], signal) => {
    if (await haveLayer(workspace, diffId)) return;
    const received = await receiveLayer(workspace, {
      source: await source.layer(descriptor, signal),
      blob: descriptor,
      diffId,
      sizeLimit: options.sizeLimit,
      signal,
      onBytes: onProgress && ((doneBytes) => onProgress({ digest: descriptor.digest, doneBytes, totalBytes: descriptor.size })),
    });
    await workspace.lock.adding(() => placeLayer(workspace, received));
  });
  await placeDocuments(workspace, found, name);
}

export async function placeDocuments(
  workspace: Workspace,
  { digest, manifest, manifestBytes, configBytes, configuration }: FoundImage,
  name: string | undefined,
): Promise<void> {
  const [manifestFile, configFile] = [workspace.newPath(), workspace.newPath()];
  await Promise.all([writeFile(manifestFile, manifestBytes, { mode: 0o600 }), writeFile(configFile, configBytes, { mode: 0o600 })]);
  await workspace.lock.adding(() => placeImage(workspace, { digest, manifest, manifestFile, configFile, layers: configuration.diffIds, name }));
}

/** Whether it is here, and stays for as long as this operation goes on. */
export function haveLayer({ lock, store }: Workspace, diffId: Digest): Promise<boolean> {
  return lock.adding(async () => {
    lock.lease(diffId);
    return hasLayer(store, diffId);
  });
}

/** `work` on each, so many at a time. The first failure aborts the others, and is thrown when they have ended. */
export async function atOnce<T>(
  items: readonly T[],
  limit: number,
  outer: AbortSignal | undefined,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const controller = new AbortController();
  const signal = outer ? AbortSignal.any([outer, controller.signal]) : controller.signal;
  const queue = [...items];
  let failure: { error: unknown } | undefined;
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined && !failure; item = queue.shift()) {
      try {
        signal.throwIfAborted();
        await work(item, signal);
      } catch (error) {
        failure ??= { error };
        controller.abort(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  if (failure) throw failure.error;
}
