import { existsSync } from 'node:fs';
import { ImageError, optionError } from '../errors.js';
import { chainIdOf, type Digest } from './digest.js';
import { refusals } from './refusals.js';
import type { StoreDirectory } from './store-directory.js';
import { StoreLock } from './store-lock.js';

/** A layer on its parents: a node of a store's tree. Its files are a directory that never changes; read it, never write to it. */
export class Layer {
  /** The OCI DiffID: the digest of the uncompressed tar. */
  readonly digest: string;
  /** The OCI ChainID: this layer on those parents. */
  readonly chainId: string;
  declare readonly parent?: Layer;
  /** Bytes of the uncompressed tar. */
  readonly sizeBytes: number;
  /** The directory of its files, in the form of a lower layer of overlayfs. All nodes of one digest have the same. */
  readonly path: string;
  readonly #store: StoreDirectory;
  readonly #isOpaque: boolean;

  /** @internal */
  constructor(store: StoreDirectory, digest: Digest, parent: Layer | undefined) {
    this.#store = store;
    this.digest = digest;
    this.chainId = chainIdOf(parent?.chainId as Digest | undefined, digest);
    if (parent) this.parent = parent;
    this.path = store.tree(digest);
    const { sizeBytes, isOpaque } = store.layerRecord(digest) ?? missingLayer(digest, store);
    this.sizeBytes = sizeBytes;
    this.#isOpaque = isOpaque;
  }

  /** The nodes that have this one as parent. */
  async *children(): AsyncGenerator<Layer, void, undefined> {
    for (const chainId of this.#store.digests('chains')) {
      const record = this.#store.chainRecord(chainId);
      if (record?.parent === this.chainId) yield new Layer(this.#store, record.layer, this);
    }
  }

  /** @internal Nothing below it is to be seen. */
  get isOpaque(): boolean {
    return this.#isOpaque;
  }

  /** @internal */
  get store(): StoreDirectory {
    return this.#store;
  }
}

/** The node and its ancestors. */
export function layerAt(store: StoreDirectory, chainId: Digest): Layer {
  const chain: Digest[] = [];
  for (let at: Digest | undefined = chainId; at !== undefined; ) {
    const record = store.chainRecord(at);
    if (!record) return missingLayer(at, store);
    chain.push(record.layer);
    at = record.parent;
  }
  return chain.reverse().reduce<Layer | undefined>((parent, digest) => new Layer(store, digest, parent), undefined) as Layer;
}

/** From its root to itself. */
export function lineOf(layer: Layer): Layer[] {
  const line: Layer[] = [];
  for (let at: Layer | undefined = layer; at; at = at.parent) line.push(at);
  return line.reverse();
}

export function missingLayer(digest: string, store: StoreDirectory): never {
  store.check();
  throw new ImageError('ERR_CLOISTER_NOT_FOUND', `there is no layer ${digest} in ${store.path}`, {
    step: 'find the layer',
    path: store.path,
    hint: 'It may have been removed, or collected by gc(): what no image and no running root uses goes.',
  });
}

/** An option that takes layers of one store. */
export function layersOf(value: unknown, option: string, store?: StoreDirectory): Layer[] {
  if (!Array.isArray(value) || value.length === 0) throw optionError(option, 'an array of at least one Layer', value);
  return value.map((layer, index) => layerOf(layer, `${option}[${index}]`, store));
}

export function layerOf(value: unknown, option: string, store?: StoreDirectory): Layer {
  if (!(value instanceof Layer) || (store && value.store.path !== store.path)) throw optionError(option, 'a Layer of this store', value);
  return value;
}

interface Hold {
  readonly locks: readonly StoreLock[];
  timer: NodeJS.Timeout | undefined;
}

/** Milliseconds for which an image's layers are still held when nobody uses them: to lock each of a hundred takes longer than to start in them. */
const patience = 1000;
/** By the image's own list, which cannot change. */
const idle = new Map<readonly Layer[], Hold>();

/** Gives up what is only held because it may be used again: before something is taken away. */
export function dropIdleHolds(): void {
  for (const { locks, timer } of idle.values()) {
    clearTimeout(timer);
    for (const lock of locks) lock.close();
  }
  idle.clear();
}

/** Keeps them from being removed, by whatever process, until `release`, or until this process is gone. */
export async function holdLayers(layers: readonly Layer[]): Promise<() => void> {
  const hold = idle.get(layers) ?? { locks: await lockLayers(layers), timer: undefined };
  clearTimeout(hold.timer);
  idle.delete(layers);
  return () => {
    // Several roots of one image have a hold each; one of them is enough to wait.
    if (!Object.isFrozen(layers) || idle.has(layers)) {
      for (const lock of hold.locks) lock.close();
      return;
    }
    idle.set(layers, hold);
    hold.timer = setTimeout(() => {
      idle.delete(layers);
      for (const lock of hold.locks) lock.close();
    }, patience);
    hold.timer.unref();
  };
}

function lockLayers(layers: readonly Layer[]): Promise<StoreLock[]> {
  return refusals(layers[0]?.store.path ?? '', 'use a layer', () => lockAll(layers));
}

async function lockAll(layers: readonly Layer[]): Promise<StoreLock[]> {
  const locks: StoreLock[] = [];
  try {
    for (const path of new Set(layers.map(({ store }) => store.path))) {
      const own = layers.filter(({ store }) => store.path === path);
      const lock = new StoreLock((own[0] as Layer).store.lock);
      locks.push(lock);
      await lock.adding(async () => {
        for (const { digest, store } of own) {
          lock.lease(digest as Digest);
          if (!existsSync(store.layer(digest as Digest))) missingLayer(digest, store);
        }
      });
    }
    return locks;
  } catch (error) {
    for (const lock of locks) lock.close();
    throw error;
  }
}
