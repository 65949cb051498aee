import { resolve } from 'node:path';
import { Readable } from 'node:stream';
import { ImageError, IsolationError, optionError } from '../errors.js';
import * as check from '../spawn/validate.js';
import { type Bytes, parseBytes } from '../units.js';
import { type Collected, collect, removeImage, removeLayer } from './collect.js';
import { createImage } from './create-image.js';
import { chainIdOf, type Digest, isDigest } from './digest.js';
import { exportFormats, exportImage } from './export.js';
import { Image, missingImage } from './image.js';
import { importImage } from './import-image.js';
import { receiveLayer } from './incoming-layer.js';
import { Layer, layerAt, layersOf, lineOf, missingLayer } from './layer.js';
import { openRegular } from './local-file.js';
import { imageConfigOf } from './manifest.js';
import { placeChain, placeLayer } from './placing.js';
import { beginBoot } from './recent.js';
import { Settler } from './settler.js';
import { StoreDirectory } from './store-directory.js';
import { StoreLock } from './store-lock.js';
import { transferOptionsOf } from './transfer-options.js';
import type { ImageConfig, ImageProgress, LayerNode, LayerTree, TransferOptions } from './types.js';
import { type Verification, verifyStore } from './verify.js';
import { sweep, Workspace } from './workspace.js';

/**
 * Layers and images in a directory, each content once: see store-directory.ts for what is where. Many processes may use one at the same
 * time; one that is killed leaves it whole. Methods need no privilege where the directory is the caller's; an ordinary user's layers have
 * that user's files only, and record the owners (LayerRecord).
 *
 * Errors are `ImageError`: ERR_CLOISTER_NOT_FOUND, ERR_CLOISTER_AMBIGUOUS, ERR_CLOISTER_IN_USE, ERR_CLOISTER_IMAGE and
 * ERR_CLOISTER_LAYER (what was given is broken or hostile), ERR_CLOISTER_DIGEST, ERR_CLOISTER_REGISTRY, ERR_CLOISTER_STORE.
 */
export class LayerStore implements AsyncDisposable {
  readonly #store: StoreDirectory;
  /** Leases of the layers that were imported by this object: so that another's gc() does not take them before an image has them. */
  #lock: StoreLock | undefined;

  readonly #settler: Settler;

  private constructor(store: StoreDirectory, lock: StoreLock) {
    this.#store = store;
    this.#lock = lock;
    this.#settler = new Settler(store, lock);
  }

  /** The directory is made if it is not there, and readable by this user alone. What killed processes left in it is taken away. */
  static async open(directory: string): Promise<LayerStore> {
    if (typeof directory !== 'string' || directory === '' || directory.includes('\0')) throw optionError('directory', 'the path of a directory', directory);
    const store = await storeErrors('open the store', directory, () => StoreDirectory.open(resolve(directory)));
    await sweep(store);
    await storeErrors('open the store', directory, () => beginBoot(store));
    return new LayerStore(store, new StoreLock(store.lock));
  }

  /**
   * A layer of a tar: uncompressed, gzip or zstd, as a stream or the path of a file. `sizeLimit` is for the uncompressed tar, and for the files
   * that it makes. Progress has the bytes of the tar as it comes, and no digest yet.
   */
  async import(
    tar: Readable | string,
    options: { parent?: Layer; signal?: AbortSignal; onProgress?: (progress: ImageProgress) => void; sizeLimit?: Bytes } = {},
  ): Promise<Layer> {
    check.record(options, 'options');
    check.onlyKeys(options, '', ['parent', 'signal', 'onProgress', 'sizeLimit']);
    const { signal, onProgress } = transferOptionsOf({
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
    });
    const sizeLimit = options.sizeLimit === undefined ? undefined : parseBytes(options.sizeLimit, 'sizeLimit');
    const parents =
      options.parent === undefined ? [] : lineOf(layersOf([options.parent], 'parent', this.#store)[0] as Layer).map(({ digest }) => digest as Digest);
    if (typeof tar !== 'string' && !(tar instanceof Readable)) throw optionError('tar', 'a Readable, or the path of a file', tar);
    const own = this.#open();
    await using workspace = await this.#adding();
    const { file: source, size } = typeof tar === 'string' ? await openRegular(tar, true) : { file: tar, size: undefined };
    const received = await receiveLayer(workspace, {
      source,
      sizeLimit,
      signal,
      onBytes: onProgress && ((doneBytes) => onProgress({ digest: '', doneBytes, ...(size === undefined ? {} : { totalBytes: size }) })),
    });
    return await workspace.lock.adding(async () => {
      for (const digest of parents) {
        workspace.lock.lease(digest);
        if (!this.#store.layerRecord(digest)) missingLayer(digest, this.#store);
      }
      await placeLayer(workspace, received);
      const chainId = (await placeChain(workspace, [...parents, received.digest])) as Digest;
      for (const digest of [...parents, received.digest]) own.lease(digest);
      return layerAt(this.#store, chainId);
    });
  }

  /**
   * An image from an OCI layout (directory or tar) or a `docker save` archive (compressed ones too). `path:reference` names one of several in
   * it. Its name here is `name`, or the one that it has there.
   */
  async importImage(source: string, options: TransferOptions & { name?: string } = {}): Promise<Image> {
    const { name, ...rest } = check.record(options, 'options') as TransferOptions & { name?: string };
    const transfer = transferOptionsOf(rest);
    const path = check.text(source, 'source');
    const as = name === undefined ? undefined : imageName(name, 'name');
    this.#open();
    await using workspace = await this.#adding();
    const { digest, name: given } = await importImage(workspace, path, as, transfer);
    return new Image(this.#store, digest, given);
  }

  /** Makes `target`, which must not exist. The files are those that the image was made of, byte by byte, wherever the format has them. */
  async exportImage(image: Image, target: string, options: { format?: 'oci-layout' | 'oci-archive' | 'docker-archive' } = {}): Promise<void> {
    check.record(options, 'options');
    check.onlyKeys(options, '', ['format']);
    const format = options.format === undefined ? 'oci-layout' : check.oneOf(options.format, 'format', exportFormats);
    const path = resolve(check.text(target, 'target'));
    const digest = this.#digestOf(image);
    this.#open();
    await using workspace = await Workspace.open(this.#store);
    await this.#hold(workspace, image);
    await exportImage(workspace, digest, image.name, path, format);
  }

  /**
   * An image from a registry: `[host[:port]/]path[:tag][@digest]`; without a host Docker Hub's. Its name here is the reference as it was
   * given. distribution-spec.
   */
  async pull(reference: string, options: TransferOptions = {}): Promise<Image> {
    const transfer = transferOptionsOf(options);
    this.#open();
    await using workspace = await this.#adding();
    // The HTTP client takes as long to load as all else that there is.
    const { pullImage } = await import('./pull.js');
    const digest = await pullImage(workspace, reference, transfer);
    return new Image(this.#store, digest, reference);
  }

  /** To a registry, with the same digests; what the registry has is not sent. */
  async push(image: Image, reference: string, options: TransferOptions = {}): Promise<void> {
    const transfer = transferOptionsOf(options);
    const digest = this.#digestOf(image);
    this.#open();
    await using workspace = await Workspace.open(this.#store);
    await this.#hold(workspace, image);
    const { pushImage } = await import('./push.js');
    await pushImage(workspace, digest, reference, transfer);
  }

  /**
   * An image of these layers (base first, all of them) and this config, named if a name is given. Layers that came uncompressed are compressed now:
   * the manifest names them so.
   */
  async createImage(options: { layers: readonly Layer[]; config?: Partial<ImageConfig>; name?: string }): Promise<Image> {
    check.record(options, 'options');
    check.onlyKeys(options, '', ['layers', 'config', 'name']);
    const layers = layersOf(options.layers, 'layers', this.#store).map(({ digest }) => digest as Digest);
    const name = options.name === undefined ? undefined : imageName(options.name, 'name');
    const config = configOption(options.config ?? {});
    this.#open();
    await using workspace = await this.#adding();
    const digest = await createImage(workspace, layers, config, name);
    return new Image(this.#store, digest, name);
  }

  /** By DiffID or ChainID. Throws ERR_CLOISTER_AMBIGUOUS where it names several nodes: then take it from `layers()` or by its ChainID. */
  async layer(digestOrChainId: string): Promise<Layer> {
    if (!isDigest(digestOrChainId)) throw optionError('digestOrChainId', "a digest: 'sha256:' and 64 hexadecimal digits", digestOrChainId);
    this.#open();
    const found = this.#store.digests('chains').filter((chainId) => chainId === digestOrChainId || this.#store.chainRecord(chainId)?.layer === digestOrChainId);
    if (found.length === 0) return missingLayer(digestOrChainId, this.#store);
    if (found.length > 1) {
      throw new ImageError('ERR_CLOISTER_AMBIGUOUS', `${digestOrChainId} is on ${found.length} different parents: ${found.join(', ')}`, {
        step: 'find the layer',
        hint: 'Name it by its ChainID; one that has no parent has its digest as ChainID, and is found by layers().',
      });
    }
    return layerAt(this.#store, found[0] as Digest);
  }

  /** All nodes of the tree, by ChainID. */
  async *layers(): AsyncGenerator<Layer, void, undefined> {
    this.#open();
    for (const chainId of this.#store.digests('chains')) {
      const layer = unlessGone(() => layerAt(this.#store, chainId));
      if (layer) yield layer;
    }
  }

  /** @internal The node that these layers, base first, end in; it is made if need be. undefined where they are not this store's. */
  async nodeOf(layers: readonly Layer[]): Promise<Layer | undefined> {
    const own = this.#open();
    if (layers.length === 0 || layers.some(({ store }) => store.path !== this.#store.path)) return undefined;
    await using workspace = await this.#adding();
    return await workspace.lock.adding(async () => {
      const digests = layers.map(({ digest }) => digest as Digest);
      for (const digest of digests) {
        if (!this.#store.layerRecord(digest)) missingLayer(digest, this.#store);
        own.lease(digest);
      }
      return layerAt(this.#store, (await placeChain(workspace, digests)) as Digest);
    });
  }

  /** By name, exactly as it was given, or by the manifest's digest. */
  async image(nameOrDigest: string): Promise<Image> {
    check.text(nameOrDigest, 'nameOrDigest');
    this.#open();
    if (isDigest(nameOrDigest)) return new Image(this.#store, nameOrDigest, undefined);
    const record = this.#store.nameRecord(nameOrDigest);
    return record ? new Image(this.#store, record.image, record.name) : missingImage(JSON.stringify(nameOrDigest), this.#store);
  }

  /** Each once for each of its names, and those without a name. */
  async *images(): AsyncGenerator<Image, void, undefined> {
    this.#open();
    const names = this.#store.names();
    for (const digest of this.#store.digests('images')) {
      const own = names.filter(({ image }) => image === digest);
      for (const name of own.length > 0 ? own.map((record) => record.name) : [undefined]) {
        const image = unlessGone(() => new Image(this.#store, digest, name));
        if (image) yield image;
      }
    }
  }

  /** All layers as the tree that they are. `images` of a node: names (or digests, without a name) of those that end there. */
  async tree(): Promise<LayerTree> {
    this.#open();
    const nodes = new Map<string, { layer: Layer; children: LayerNode[]; images: string[] }>();
    const roots: LayerNode[] = [];
    for await (const layer of this.layers()) nodes.set(layer.chainId, { layer, children: [], images: [] });
    for (const node of nodes.values()) {
      const parent = node.layer.parent && nodes.get(node.layer.parent.chainId);
      (parent ? parent.children : roots).push(node);
    }
    const names = this.#store.names();
    for (const digest of this.#store.digests('images')) {
      let chainId: Digest | undefined;
      for (const layer of this.#store.imageRecord(digest)?.layers ?? []) chainId = chainIdOf(chainId, layer);
      const own = names.filter(({ image }) => image === digest).map(({ name }) => name);
      if (chainId) nodes.get(chainId)?.images.push(...(own.length > 0 ? own : [digest]));
    }
    return { roots };
  }

  /**
   * Of an image with a name, that name, and the image with the last of them; its layers stay until gc(). A layer that an image, or a layer
   * on it, uses is refused with ERR_CLOISTER_IN_USE; one that a running root uses with ERR_CLOISTER_BUSY.
   */
  async remove(what: Layer | Image): Promise<void> {
    if (!(what instanceof Layer) && !(what instanceof Image)) throw optionError('what', 'a Layer or an Image', what);
    const lock = this.#open();
    if (what instanceof Layer) {
      layersOf([what], 'what', this.#store);
      await using workspace = await Workspace.open(this.#store);
      await removeLayer(workspace, lock, what.chainId as Digest);
    } else {
      await using workspace = await Workspace.open(this.#store);
      await removeImage(workspace, lock, this.#digestOf(what), what.name);
    }
  }

  /**
   * Takes away the layers that no image, no running root and no operation that is going on uses, in this process or another; what another LayerStore
   * has imported and not disposed of stays, too. `removed`: DiffIDs, and ChainIDs of nodes whose content stays.
   */
  async gc(): Promise<Collected> {
    const lock = this.#open();
    await using workspace = await Workspace.open(this.#store);
    return await collect(workspace, lock);
  }

  /** Reads everything: each blob against its digest, each layer's files against its tar. Changes nothing. */
  async verify(): Promise<Verification> {
    this.#open();
    await using workspace = await Workspace.open(this.#store);
    return await verifyStore(workspace);
  }

  /**
   * Waits until all that was put there is on the disk, and gives up the leases of what it has imported. Its layers and images can still be used.
   * ERR_CLOISTER_STORE if the disk refuses. syncfs(2).
   */
  async [Symbol.asyncDispose](): Promise<void> {
    const lock = this.#lock;
    this.#lock = undefined;
    if (!lock) return;
    try {
      await this.#settler.end();
    } finally {
      lock.close();
    }
  }

  /** What this puts there is on the disk some time after. */
  async #adding(): Promise<Workspace> {
    const workspace = await Workspace.open(this.#store);
    workspace.onEnd = () => this.#settler.later();
    return workspace;
  }

  #open(): StoreLock {
    if (!this.#lock) throw new IsolationError('ERR_CLOISTER_DISPOSED', 'this LayerStore has been disposed');
    return this.#lock;
  }

  #digestOf(image: unknown): Digest {
    if (!(image instanceof Image) || !isDigest(image.digest)) throw optionError('image', 'an Image of this store', image);
    if (!this.#store.has('images', image.digest)) return missingImage(image.digest, this.#store);
    return image.digest;
  }

  #hold(workspace: Workspace, image: Image): Promise<void> {
    return workspace.lock.adding(async () => {
      if (!this.#store.imageRecord(image.digest as Digest)) missingImage(image.digest, this.#store);
      for (const { digest } of image.layers) workspace.lock.lease(digest as Digest);
    });
  }
}

/** Of what was listed, something may have been removed since, by another process. */
function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if ((error as ImageError).code === 'ERR_CLOISTER_NOT_FOUND') return undefined;
    throw error;
  }
}

function imageName(value: unknown, option: string): string {
  const name = check.text(value, option);
  // A digest is looked up as one.
  if (name === '' || name.length > 1024 || isDigest(name)) throw optionError(option, 'a name of at most 1024 characters that is no digest', value);
  return name;
}

function configOption(value: unknown): ImageConfig {
  check.onlyKeys(check.record(value, 'config'), 'config', [
    'Env',
    'Entrypoint',
    'Cmd',
    'User',
    'WorkingDir',
    'StopSignal',
    'ExposedPorts',
    'Volumes',
    'Labels',
  ]);
  try {
    return imageConfigOf(value, 'config');
  } catch (error) {
    throw optionError('config', `the config object of an OCI image: ${(error as Error).message}`, value);
  }
}

async function storeErrors<T>(step: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const { errno, syscall } = cause as NodeJS.ErrnoException;
    if (cause instanceof IsolationError || errno === undefined) throw cause;
    throw ImageError.ofErrno('ERR_CLOISTER_STORE', errno, {
      step,
      syscall,
      path,
      cause,
      hint: 'The directory must be this user’s, on a file system that can be written.',
    });
  }
}
