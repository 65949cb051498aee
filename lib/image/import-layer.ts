import { Readable } from 'node:stream';
import { optionError } from '../errors.js';
import * as check from '../spawn/validate.js';
import { type Bytes, parseBytes } from '../units.js';
import type { Digest } from './digest.js';
import { receiveLayer } from './incoming-layer.js';
import { type Layer, layerAt, layerOf, lineOf, missingLayer } from './layer.js';
import { openRegular } from './local-file.js';
import { placeChain, placeLayer } from './placing.js';
import type { StoreDirectory } from './store-directory.js';
import type { StoreLock } from './store-lock.js';
import { transferOptionsOf } from './transfer-options.js';
import type { ImageProgress } from './types.js';
import type { Workspace } from './workspace.js';

/** What is to become a layer. */
export interface LayerImport {
  readonly tar: Readable | string;
  /** Base first. */
  readonly parents: readonly Digest[];
  readonly sizeLimit: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((progress: ImageProgress) => void) | undefined;
}

export function layerImportOf(
  store: StoreDirectory,
  tar: Readable | string,
  options: { parent?: Layer; signal?: AbortSignal; onProgress?: (progress: ImageProgress) => void; sizeLimit?: Bytes },
): LayerImport {
  check.record(options, 'options');
  check.onlyKeys(options, '', ['parent', 'signal', 'onProgress', 'sizeLimit']);
  const { signal, onProgress } = transferOptionsOf({
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
  });
  const sizeLimit = options.sizeLimit === undefined ? undefined : parseBytes(options.sizeLimit, 'sizeLimit');
  const parents = options.parent === undefined ? [] : lineOf(layerOf(options.parent, 'parent', store)).map(({ digest }) => digest as Digest);
  const isPath = typeof tar === 'string' && tar !== '' && !tar.includes('\0');
  if (!isPath && !(tar instanceof Readable)) throw optionError('tar', 'a Readable, or the path of a file', tar);
  return { tar, parents, sizeLimit, signal, onProgress };
}

/** `own`: leases of who imports it, as nothing refers to it yet. */
export async function importLayer(workspace: Workspace, own: StoreLock, { tar, parents, sizeLimit, signal, onProgress }: LayerImport): Promise<Layer> {
  const { store, lock } = workspace;
  const { file: source, size } = typeof tar === 'string' ? await openRegular(tar, true) : { file: tar, size: undefined };
  const received = await receiveLayer(workspace, {
    source,
    sizeLimit,
    signal,
    onBytes: onProgress && ((doneBytes) => onProgress({ digest: '', doneBytes, ...(size === undefined ? {} : { totalBytes: size }) })),
  });
  return await lock.adding(async () => {
    for (const digest of parents) {
      lock.lease(digest);
      if (!store.layerRecord(digest)) missingLayer(digest, store);
    }
    await placeLayer(workspace, received);
    const chainId = (await placeChain(workspace, [...parents, received.digest])) as Digest;
    for (const digest of [...parents, received.digest]) own.lease(digest);
    return layerAt(store, chainId);
  });
}

/** The node that these layers, base first, end in; it is made if need be. */
export async function placeLine(workspace: Workspace, own: StoreLock, layers: readonly Layer[]): Promise<Layer> {
  const { store, lock } = workspace;
  return await lock.adding(async () => {
    const digests = layers.map(({ digest }) => digest as Digest);
    for (const digest of digests) {
      if (!store.layerRecord(digest)) missingLayer(digest, store);
      own.lease(digest);
    }
    return layerAt(store, (await placeChain(workspace, digests)) as Digest);
  });
}
