import { Readable } from 'node:stream';
import { IsolationError, optionError } from '../errors.js';
import { caller } from '../host/caller.js';
import type { Image } from '../image/image.js';
import type { Layer } from '../image/layer.js';
import { LayerStore } from '../image/layer-store.js';
import { type Ids, idsFor } from '../security/id-map.js';
import * as check from '../spawn/validate.js';
import { outputOf } from '../tree/task.js';
import { applyChanges, applyOptionsOf, type Marks } from './apply.js';
import { commitTo } from './commit.js';
import { addition, branchesOf, checkBranch, removal } from './drivers/branches.js';
import { settingsOfFork } from './fork.js';
import { checkHidden } from './host-layout.js';
import { checkLayers } from './layer-hold.js';
import { mountAt } from './mount-at.js';
import { settingsOf } from './root-options.js';
import { type RootUse, SharedRoot } from './shared-root.js';
import type { ApplyReport, Branch, Change, OverlayOptions } from './types.js';
import { listChanges, startDiff } from './writable-layer.js';

/**
 * A copy-on-write root: directories as read-only layers, and a writable layer above them. Many spawns can use one; they see
 * each other's writes. Borrowed by a spawn, never disposed by it: `await using`, or call `[Symbol.asyncDispose]`.
 *
 * Needs CAP_SYS_ADMIN, or unprivileged user namespaces. overlayfs: Documentation/filesystems/overlayfs.rst.
 */
export class OverlayRootfs implements AsyncDisposable {
  /** What makes one tree of the layers: docs/drivers.md. */
  readonly driver: 'overlay' | 'aufs' | 'fuse-overlayfs';
  readonly #root: SharedRoot;
  readonly #marks: Marks = new Map();

  private constructor(root: SharedRoot) {
    this.#root = root;
    this.driver = root.settings.driver.name;
  }

  /**
   * Layers are directories, or layers of a store (which stay in it for as long as the root lives), base first. `upper`: 'tmpfs' (default; `size` 512M), 'disk' (a directory of our own, deleted at the
   * end; `size` is refused), or the path of a directory, which is kept and must be on the file system of its parent.
   *
   * `driver`: 'auto' (default) is 'overlay' where the kernel has it, else 'aufs' for root, else 'fuse-overlayfs'; what each can, and needs, is in docs/drivers.md.
   *
   * Throws `TypeError` for wrong options, `IsolationError` ERR_CLOISTER_ROOTFS if the kernel refuses the layers, or this host or user does not have the driver.
   */
  static async create(options: OverlayOptions): Promise<OverlayRootfs> {
    check.record(options, 'options');
    check.onlyKeys(options, '', ['layers', 'upper', 'size', 'driver', 'volatile', 'idMap']);
    return OverlayRootfs.#create(options, checkLayers(options.layers));
  }

  /**
   * The host's `/` copy-on-write: homes, /run, /tmp and /var/tmp empty, the host's keys and password hashes not there, each
   * mount of the host overlaid in turn. `hide` names more paths that are not to be seen.
   */
  static async host(options: Omit<OverlayOptions, 'layers'> & { hide?: readonly string[] } = {}): Promise<OverlayRootfs> {
    check.record(options, 'options');
    check.onlyKeys(options, '', ['upper', 'size', 'driver', 'volatile', 'idMap', 'hide']);
    const hide = options.hide === undefined ? [] : check.list(options.hide, 'hide', checkHidden);
    return OverlayRootfs.#create(options, undefined, hide);
  }

  /** @internal For one spawn, whose ids it will have: that tells soon enough what the kernel thinks of it. */
  static ofImage({ layers }: Image): Promise<OverlayRootfs> {
    return OverlayRootfs.#create({}, layers, [], false);
  }

  static async #create(
    options: Omit<OverlayOptions, 'layers'>,
    layers: readonly (string | Layer)[] | undefined,
    hide: readonly string[] = [],
    trial = true,
  ): Promise<OverlayRootfs> {
    const settings = await settingsOf(options, layers, hide);
    return new OverlayRootfs(await SharedRoot.begin(settings, options.idMap !== undefined, trial));
  }

  /** @internal The ids that its files are owned by, once that has been decided. */
  get ids(): Ids | undefined {
    return this.#root.ids;
  }

  /** @internal Decides on these ids, where none are decided. */
  propose(ids: Ids): void {
    this.#root.propose(ids);
  }

  /** @internal One more spawn, with these ids, uses it. Call `release` once. */
  use(ids: Ids): Promise<RootUse> {
    return this.#root.use(ids);
  }

  /**
   * Mounts it on a directory of the host, for the host's own tools; disposing the result unmounts it. Owners are seen as they are outside. What is
   * running in it goes on. Needs CAP_SYS_ADMIN: ERR_CLOISTER_MOUNT. The mount outlives this process if that is killed.
   */
  async mount(target: string): Promise<AsyncDisposable> {
    check.absolutePath(target, 'target');
    const own = this.ids ? undefined : await idsFor(this.#root.settings.idMap, caller(), { uid: 0, gid: 0 });
    try {
      if (own) this.propose(own);
      return await mountAt(await this.use(this.ids ?? (own as Ids)), target);
    } finally {
      own?.release();
    }
  }

  /**
   * What has been written, against the layers below: exactly the difference, found in the writable layer alone. Paths are
   * absolute, as the inside sees them; a deleted directory is one change, with all that was in it; of a directory of which only the time has
   * changed, as something was made or deleted in it, nothing is told. Directories come before what is in them.
   *
   * As consistent as looking at files that are being written to: stop or freeze what runs in it first. ERR_CLOISTER_STEP if the
   * host refuses to read.
   */
  async *changes(): AsyncGenerator<Change, void, undefined> {
    const held = await this.#root.read();
    if (!held) return;
    // All of them at once: whoever stops to ask, and does not say so, must not keep the root.
    const lines = await listChanges(held.made, held.below).finally(() => held.release());
    yield* lines;
  }

  /**
   * The difference as an OCI layer, uncompressed: the same content makes the same bytes. In inside ids; sockets are not in it. Streams: memory does not
   * grow with it. image-spec's layer.md. Destroying the stream ends the work.
   */
  diff(): Readable {
    const root = this;
    async function* bytes(): AsyncGenerator<Buffer, void, undefined> {
      const held = await root.#root.read();
      if (!held) {
        // The end of a tar, and nothing before it.
        yield Buffer.alloc(1024);
        return;
      }
      try {
        yield* outputOf(startDiff(held.made, held.below, 'inside', 'names'));
      } finally {
        held.release();
      }
    }
    return Readable.from(bytes(), { objectMode: false });
  }

  /**
   * Takes what was written to a directory of the host, which the root directory stands for: what `filter` accepts, or all. Never through a symlink there, and each
   * entry by one rename. A conflict, and not touched: what has been changed there since the root was made; device nodes, sockets, set-id programs and
   * those with file capabilities; what the host refuses. Owners are those of the inside; an ordinary user's files become its own. `dryRun`: only told.
   *
   * `TypeError` for a wrong option; ERR_CLOISTER_STEP if the target is no directory.
   */
  async apply(target: string, options: { filter?: (change: Change) => boolean | Promise<boolean>; dryRun?: boolean } = {}): Promise<ApplyReport> {
    check.absolutePath(target, 'target');
    const checked = applyOptionsOf(options);
    const held = await this.#root.read();
    try {
      return await applyChanges(held, this.#root.settings, target, checked, this.#marks);
    } finally {
      held?.release();
    }
  }

  /**
   * What has been written as a layer of a store, by diff(). Its parent is the last of the root's layers, where all of them are layers of that
   * store. A fork has, between the two, a layer for what was written before each fork: its line of parents is the whole.
   */
  async commit(store: LayerStore): Promise<Layer> {
    if (!(store instanceof LayerStore)) throw optionError('store', 'a LayerStore', store);
    const held = await this.#root.read();
    try {
      const { hold, frozen } = this.#root.settings;
      return await commitTo(store, hold, frozen, held?.made.owner, this.diff());
    } finally {
      held?.release();
    }
  }

  /**
   * A new root on the same layers and a copy of what has been written so far; this one goes on, and neither sees what the other writes from
   * now on. Its writable layer is on tmpfs, or on disk if this one's is 'disk'. To be disposed by the caller. Not with aufs: ERR_CLOISTER_UNSUPPORTED.
   */
  async fork(): Promise<OverlayRootfs> {
    if (this.driver === 'aufs') {
      // What was written would be a layer with whiteouts in overlayfs's form.
      throw new IsolationError('ERR_CLOISTER_UNSUPPORTED', 'fork: not with aufs in this version', { hint: "Use driver 'overlay' for roots that are forked." });
    }
    const held = await this.#root.read();
    try {
      const { settings } = this.#root;
      return new OverlayRootfs(await SharedRoot.begin(await settingsOfFork(settings, held), settings.idMap !== 'auto'));
    } finally {
      held?.release();
    }
  }

  /** Throws away what has been written. ERR_CLOISTER_BUSY while something runs in it. */
  reset(): Promise<void> {
    return this.#root.reset();
  }

  /**
   * The layers, the writable one first, then those below it in order. One without a path of the host's is told as 'tmpfs' or 'frozen'. With
   * aufs `attributes` are its permission and attributes: aufs(5), "Branch Syntax".
   */
  async branches(): Promise<Branch[]> {
    this.#root.refuseDisposed();
    return branchesOf(this.#root.settings);
  }

  /**
   * One more layer, also while programs run in the root. `index`: where among `branches()`; default: right below the writable one. What is written
   * to a `writable` one is not among `changes()`. With aufs only: else it rejects with ERR_CLOISTER_UNSUPPORTED. aufs(5), "add:index:BRANCH".
   */
  async addBranch(directory: string, options: { writable?: boolean; index?: number } = {}): Promise<void> {
    checkBranch(this.#root.settings.driver, 'addBranch', directory, options);
    await this.#root.changeBranches((settings) => addition(settings, directory, options));
  }

  /** A layer less. ERR_CLOISTER_BUSY while something uses the root. With aufs only: else it rejects with ERR_CLOISTER_UNSUPPORTED. aufs(5), "del:dir". */
  async removeBranch(directory: string): Promise<void> {
    checkBranch(this.#root.settings.driver, 'removeBranch', directory, {});
    await this.#root.changeBranches((settings) => removal(settings, directory));
  }

  /** Takes the mounts away, and an upper of our own; while a spawn uses it, the last of them does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#root.dispose();
  }
}
