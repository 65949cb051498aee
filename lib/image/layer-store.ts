import { resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { IsolationError, optionError } from '../errors.js';
import * as check from '../spawn/validate.js';
import type { Bytes } from '../units.js';
import { type Collected, collect, removeImage, removeLayer } from './collect.js';
import { createImage } from './create-image.js';
import { type Digest, isDigest } from './digest.js';
import { exportFormats, exportImage } from './export.js';
import { Image, leaseImage, missingImage } from './image.js';
import { imageConfig, imageName } from './image-options.js';
import { importImage } from './import-image.js';
import { importLayer, layerImportOf, placeLine } from './import-layer.js';
import { Layer, layerOf, layersOf } from './layer.js';
import { findImage, findLayer, imagesIn, layersIn, treeIn } from './lookup.js';
import { openStore } from './open-store.js';
import { refusals } from './refusals.js';
import { Settler } from './settler.js';
import type { StoreDirectory } from './store-directory.js';
import { StoreLock } from './store-lock.js';
import { transferOptionsOf } from './transfer-options.js';
import type { ImageConfig, ImageProgress, LayerTree, TransferOptions } from './types.js';
import { type Verification, verifyStore } from './verify.js';
import { Workspace } from './workspace.js';

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

  /**
   * The directory is made if it is not there, and readable by this user alone. One that is another user's, or that others may write to, is refused
   * (ERR_CLOISTER_STORE). What killed processes left in it is taken away.
   */
  static async open(directory: string): Promise<LayerStore> {
    const store = await openStore(directory);
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
    const given = layerImportOf(this.#store, tar, options);
    const own = this.#open();
    const source = typeof given.tar === 'string' ? undefined : given.tar;
    // A file that cannot be opened says so before anything is read from it: then it is this promise that tells.
    source?.on('error', () => {});
    try {
      return await this.#adding((workspace) => importLayer(workspace, own, given));
    } finally {
      source?.destroy();
    }
  }

  /**
   * An image from an OCI layout (directory or tar) or a `docker save` archive (compressed ones too). `path:reference` names one of several in
   * it. Its name here is `name`, or the one that it has there.
   */
  async importImage(source: string, options: TransferOptions & { name?: string } = {}): Promise<Image> {
    const { name, ...rest } = check.record(options, 'options') as TransferOptions & { name?: string };
    const transfer = transferOptionsOf(rest);
    const path = check.path(source, 'source');
    const as = name === undefined ? undefined : imageName(name, 'name');
    this.#open();
    const { digest, name: given } = await this.#adding((workspace) => importImage(workspace, path, as, transfer));
    return new Image(this.#store, digest, given);
  }

  /** Makes `target`, which must not exist. The files are those that the image was made of, byte by byte, wherever the format has them. */
  async exportImage(image: Image, target: string, options: { format?: 'oci-layout' | 'oci-archive' | 'docker-archive' } = {}): Promise<void> {
    check.record(options, 'options');
    check.onlyKeys(options, '', ['format']);
    const format = options.format === undefined ? 'oci-layout' : check.oneOf(options.format, 'format', exportFormats);
    const path = resolve(check.path(target, 'target'));
    const digest = this.#digestOf(image);
    this.#open();
    await this.#working(async (workspace) => {
      await leaseImage(workspace, image);
      await exportImage(workspace, digest, image.name, path, format);
    });
  }

  /**
   * An image from a registry: `[host[:port]/]path[:tag][@digest]`; without a host Docker Hub's. Its name here is the reference as it was
   * given. distribution-spec.
   */
  async pull(reference: string, options: TransferOptions = {}): Promise<Image> {
    const transfer = transferOptionsOf(options);
    this.#open();
    // The HTTP client takes as long to load as all else that there is.
    const { pullImage } = await import('./pull.js');
    const digest = await this.#adding((workspace) => pullImage(workspace, reference, transfer));
    return new Image(this.#store, digest, reference);
  }

  /** To a registry, with the same digests; what the registry has is not sent. */
  async push(image: Image, reference: string, options: TransferOptions = {}): Promise<void> {
    const transfer = transferOptionsOf(options);
    const digest = this.#digestOf(image);
    this.#open();
    const { pushImage } = await import('./push.js');
    await this.#working(async (workspace) => {
      await leaseImage(workspace, image);
      await pushImage(workspace, digest, reference, transfer);
    });
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
    const config = imageConfig(options.config === undefined ? {} : options.config);
    this.#open();
    const digest = await this.#adding((workspace) => createImage(workspace, layers, config, name));
    return new Image(this.#store, digest, name);
  }

  /** By DiffID or ChainID. Throws ERR_CLOISTER_AMBIGUOUS where it names several nodes: then take it from `layers()` or by its ChainID. */
  async layer(digestOrChainId: string): Promise<Layer> {
    if (!isDigest(digestOrChainId)) throw optionError('digestOrChainId', "a digest: 'sha256:' and 64 hexadecimal digits", digestOrChainId);
    this.#open();
    return findLayer(this.#store, digestOrChainId);
  }

  /** All nodes of the tree, by ChainID. */
  async *layers(): AsyncGenerator<Layer, void, undefined> {
    this.#open();
    yield* layersIn(this.#store);
  }

  /** @internal The node that these layers, base first, end in; it is made if need be. undefined where they are not this store's. */
  async nodeOf(layers: readonly Layer[]): Promise<Layer | undefined> {
    const own = this.#open();
    if (layers.length === 0 || layers.some(({ store }) => store.path !== this.#store.path)) return undefined;
    return await this.#adding((workspace) => placeLine(workspace, own, layers));
  }

  /** By name, exactly as it was given, or by the manifest's digest. */
  async image(nameOrDigest: string): Promise<Image> {
    check.text(nameOrDigest, 'nameOrDigest');
    this.#open();
    return findImage(this.#store, nameOrDigest);
  }

  /** Each once for each of its names, and those without a name. */
  async *images(): AsyncGenerator<Image, void, undefined> {
    this.#open();
    yield* imagesIn(this.#store);
  }

  /** All layers as the tree that they are. `images` of a node: names (or digests, without a name) of those that end there. */
  async tree(): Promise<LayerTree> {
    this.#open();
    return treeIn(this.#store);
  }

  /**
   * Of an image with a name, that name, and the image with the last of them; its layers stay until gc(). A layer that an image, or a layer
   * on it, uses is refused with ERR_CLOISTER_IN_USE; one that a running root uses with ERR_CLOISTER_BUSY.
   */
  async remove(what: Layer | Image): Promise<void> {
    if (!(what instanceof Layer) && !(what instanceof Image)) throw optionError('what', 'a Layer or an Image', what);
    const lock = this.#open();
    if (what instanceof Layer) {
      layerOf(what, 'what', this.#store);
      await this.#working((workspace) => removeLayer(workspace, lock, what.chainId as Digest));
    } else {
      const digest = this.#digestOf(what);
      await this.#working((workspace) => removeImage(workspace, lock, digest, what.name));
    }
  }

  /**
   * Takes away the layers that no image, no running root and no operation that is going on uses, in this process or another; what another LayerStore
   * has imported and not disposed of stays, too. `removed`: DiffIDs, and ChainIDs of nodes whose content stays.
   */
  async gc(): Promise<Collected> {
    const lock = this.#open();
    return await this.#working((workspace) => collect(workspace, lock));
  }

  /** Reads everything: each blob against its digest, each layer's files against its tar. Changes nothing. */
  async verify(): Promise<Verification> {
    this.#open();
    return await this.#working(verifyStore);
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
      await refusals(this.#store.path, 'sync the store', () => this.#settler.end());
    } finally {
      lock.close();
    }
  }

  #working<T>(work: (workspace: Workspace) => Promise<T>): Promise<T> {
    return refusals(this.#store.path, 'use the store', async () => {
      await using workspace = await Workspace.open(this.#store);
      return await work(workspace);
    });
  }

  /** What this puts there is on the disk some time after. */
  #adding<T>(work: (workspace: Workspace) => Promise<T>): Promise<T> {
    return this.#working((workspace) => {
      workspace.onEnd = () => this.#settler.later();
      return work(workspace);
    });
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
}
