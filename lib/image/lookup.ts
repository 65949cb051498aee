import { ImageError } from '../errors.js';
import { chainIdOf, type Digest, isDigest } from './digest.js';
import { Image, missingImage } from './image.js';
import { type Layer, layerAt, missingLayer } from './layer.js';
import type { StoreDirectory } from './store-directory.js';
import type { LayerNode, LayerTree } from './types.js';

// What a store has, as it is read: something may be removed meanwhile, by another process.

/** By DiffID or ChainID. */
export function findLayer(store: StoreDirectory, digestOrChainId: Digest): Layer {
  const found = store.digests('chains').filter((chainId) => chainId === digestOrChainId || store.chainRecord(chainId)?.layer === digestOrChainId);
  if (found.length === 0) return missingLayer(digestOrChainId, store);
  if (found.length > 1) {
    throw new ImageError('ERR_CLOISTER_AMBIGUOUS', `${digestOrChainId} is on ${found.length} different parents: ${found.join(', ')}`, {
      step: 'find the layer',
      hint: 'Name it by its ChainID; one that has no parent has its digest as ChainID, and is found by layers().',
    });
  }
  return layerAt(store, found[0] as Digest);
}

export function* layersIn(store: StoreDirectory): Generator<Layer, void, undefined> {
  for (const chainId of store.digests('chains')) {
    const layer = unlessGone(() => layerAt(store, chainId));
    if (layer) yield layer;
  }
}

/** By name, or by the manifest's digest. */
export function findImage(store: StoreDirectory, nameOrDigest: string): Image {
  if (isDigest(nameOrDigest)) return new Image(store, nameOrDigest, undefined);
  const record = store.nameRecord(nameOrDigest);
  return record ? new Image(store, record.image, record.name) : missingImage(JSON.stringify(nameOrDigest), store);
}

export function* imagesIn(store: StoreDirectory): Generator<Image, void, undefined> {
  const names = store.names();
  for (const digest of store.digests('images')) {
    const own = names.filter(({ image }) => image === digest);
    for (const name of own.length > 0 ? own.map((record) => record.name) : [undefined]) {
      const image = unlessGone(() => new Image(store, digest, name));
      if (image) yield image;
    }
  }
}

export function treeIn(store: StoreDirectory): LayerTree {
  const nodes = new Map<string, { layer: Layer; children: LayerNode[]; images: string[] }>();
  const roots: LayerNode[] = [];
  for (const layer of layersIn(store)) nodes.set(layer.chainId, { layer, children: [], images: [] });
  for (const node of nodes.values()) {
    const parent = node.layer.parent && nodes.get(node.layer.parent.chainId);
    (parent ? parent.children : roots).push(node);
  }
  const names = store.names();
  for (const digest of store.digests('images')) {
    let chainId: Digest | undefined;
    for (const layer of store.imageRecord(digest)?.layers ?? []) chainId = chainIdOf(chainId, layer);
    const own = names.filter(({ image }) => image === digest).map(({ name }) => name);
    if (chainId) nodes.get(chainId)?.images.push(...(own.length > 0 ? own : [digest]));
  }
  return { roots };
}

function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if ((error as ImageError).code === 'ERR_CLOISTER_NOT_FOUND') return undefined;
    throw error;
  }
}
