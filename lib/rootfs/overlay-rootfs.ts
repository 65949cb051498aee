import { statSync } from 'node:fs';
import { dirname, isAbsolute } from 'node:path';
import { Readable } from 'node:stream';
import { IsolationError, optionError } from '../errors.js';
import { caller } from '../host/caller.js';
import type { Image } from '../image/image.js';
import { Layer } from '../image/layer.js';
import { LayerStore } from '../image/layer-store.js';
import { checkIdMap, type Ids, idsFor, sameMap } from '../security/id-map.js';
import { leaseRange } from '../security/id-range.js';
import * as check from '../spawn/validate.js';
import { outputOf } from '../tree/task.js';
import { removeTree } from '../tree/tree.js';
import { parseBytes } from '../units.js';
import { applyChanges, type Marks } from './apply.js';
import { type Below, lookBelow } from './below.js';
import { commitTo } from './commit.js';
import { makeDiskUpper, removeDeadUppers } from './disk-upper.js';
import { attributesOf, changeMounted, checkBranch, positionOf } from './drivers/branches.js';
import { checkDriver, chooseDriver, refuseLayers } from './drivers/choose.js';
import { freeze } from './freeze.js';
import { hostRoot } from './host-root.js';
import { checkLayers, LayerHold, visible } from './layer-hold.js';
import type { PartSource } from './lowers.js';
import { closeRoot, directoryLower, isKept, type Made, makeRoot, type RootSettings, workOf } from './make-root.js';
import { tryMounts } from './mount-abilities.js';
import { mountAt } from './mount-at.js';
import { defaultUpperSize } from './ready.js';
import type { ApplyReport, Branch, Change, OverlayOptions } from './types.js';
import { emptyDirectory, listChanges, startDiff } from './writable-layer.js';

/**
 * A copy-on-write root: directories as read-only layers, and a writable layer above them. Many spawns can use one; they see
 * each other's writes. Borrowed by a spawn, never disposed by it: `await using`, or call `[Symbol.asyncDispose]`.
 *
 * Needs CAP_SYS_ADMIN, or unprivileged user namespaces. overlayfs: Documentation/filesystems/overlayfs.rst.
 */
export class OverlayRootfs implements AsyncDisposable {
  /** What makes one tree of the layers: docs/drivers.md. */
  readonly driver: 'overlay' | 'aufs' | 'fuse-overlayfs';
  #settings: RootSettings;
  #ids: Ids | undefined;
  #made: Promise<Made> | undefined;
  /** What lies below the writable layer, opened when first needed. */
  #below: Promise<Below> | undefined;
  readonly #marks: Marks = new Map();
  #users = 0;
  #disposed = false;
  #released: (() => void) | undefined;
  readonly #end: Promise<void>;

  private constructor(settings: RootSettings) {
    this.#settings = settings;
    this.driver = settings.driver.name;
    this.#end = new Promise((resolve) => {
      this.#released = resolve;
    });
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
    return OverlayRootfs.#create(options, checkLayers(options.layers), []);
  }

  /**
   * The host's `/` copy-on-write: homes, /run, /tmp and /var/tmp empty, the host's keys and password hashes not there, each
   * mount of the host overlaid in turn. `hide` names more paths that are not to be seen.
   */
  static async host(options: Omit<OverlayOptions, 'layers'> & { hide?: readonly string[] } = {}): Promise<OverlayRootfs> {
    check.record(options, 'options');
    check.onlyKeys(options, '', ['upper', 'size', 'driver', 'volatile', 'idMap', 'hide']);
    const hide = options.hide === undefined ? [] : check.list(options.hide, 'hide', check.absolutePath);
    return OverlayRootfs.#create(options, undefined, hide);
  }

  /** @internal For one spawn, whose ids it will have: that tells soon enough what the kernel thinks of it. */
  static ofImage({ layers }: Image): Promise<OverlayRootfs> {
    return OverlayRootfs.#create({}, layers, [], false);
  }

  static async #create(
    options: Omit<OverlayOptions, 'layers'>,
    layers: readonly (string | Layer)[] | undefined,
    hide: readonly string[],
    trial = true,
  ): Promise<OverlayRootfs> {
    const choice = checkDriver(options.driver);
    const upper = options.upper ?? 'tmpfs';
    if (upper !== 'tmpfs' && upper !== 'disk' && !(typeof upper === 'string' && isAbsolute(upper))) {
      throw optionError('upper', "'tmpfs', 'disk' or the absolute path of a directory", upper);
    }
    if (options.size !== undefined && upper !== 'tmpfs') {
      throw optionError('size', "nothing unless upper is 'tmpfs': a directory's size needs a project quota, which this version cannot set", options.size);
    }
    const settings: Omit<RootSettings, 'upper' | 'hold' | 'driver'> = {
      layers: layers && visible(layers),
      stores: [...new Set((layers ?? []).flatMap((layer) => (layer instanceof Layer ? dirname(dirname(layer.path)) : [])))],
      frozen: [],
      hide,
      ownUpper: upper === 'disk',
      size: options.size === undefined ? defaultUpperSize : parseBytes(options.size, 'size'),
      volatile: options.volatile === undefined ? upper === 'disk' : check.flag(options.volatile, 'volatile'),
      idMap: options.idMap === undefined ? 'auto' : checkIdMap(options.idMap, 'idMap'),
    };
    const driver = await chooseDriver(choice, layers === undefined);
    await refuseLayers(driver, layers);
    if (upper === 'disk') await removeDeadUppers();
    const hold = layers && (await LayerHold.of(layers));
    const root = new OverlayRootfs({ ...settings, driver, hold, upper: upper === 'disk' ? makeDiskUpper() : upper });
    await root.#begin(options.idMap !== undefined, trial);
    return root;
  }

  /** `decided`: the ids are those that were asked for, not those of its first spawn. */
  async #begin(decided: boolean, trial = true): Promise<void> {
    const { idMap, upper } = this.#settings;
    try {
      await tryMounts();
      // With 'auto' the ids are those of the first spawn. Trying now tells at once what the kernel thinks of these layers.
      const kept = !decided && isKept(this.#settings) && caller().mayMapRanges ? await leaseRange(ownerOf(upper)) : undefined;
      if (kept) await this.#decide(kept);
      else if (decided) await this.#decide(await idsFor(idMap, caller(), { uid: 0, gid: 0 }));
      else if (trial) await closeRoot(await makeRoot(this.#settings, await idsFor('auto', caller(), { uid: 0, gid: 0 }), true));
    } catch (error) {
      await this.#cleanUp(undefined);
      throw error;
    }
  }

  /** Takes the ids over. */
  #decide(ids: Ids): Promise<Made> {
    this.#ids = ids;
    this.#made = makeRoot(this.#settings, ids);
    return this.#made;
  }

  /** @internal The ids that its files are owned by, once that has been decided. */
  get ids(): Ids | undefined {
    return this.#ids;
  }

  /** @internal One more spawn, with these ids, uses it. Call `release` once. */
  async use(ids: Ids): Promise<RootUse> {
    this.#enter();
    try {
      const made = await (this.#made ?? this.#decide(ids.retain()));
      refuseDead(made);
      if (!sameMap(ids.map, made.ids.map)) {
        throw optionError('idMap', "'auto', or the map that the OverlayRootfs was made with: its files are owned by those ids", ids.map);
      }
      return { ...made, release: () => this.#leave() };
    } catch (error) {
      this.#leave();
      throw error;
    }
  }

  #enter(): void {
    if (this.#disposed) throw new IsolationError('ERR_CLOISTER_DISPOSED', 'this OverlayRootfs has been disposed');
    this.#users++;
  }

  #leave(): void {
    this.#users--;
    if (this.#users === 0 && this.#disposed) void this.#finish();
  }

  /** Held while its writable layer is read. undefined: nothing has ever been written to it. */
  async #read(): Promise<{ made: Made; below: number; release: () => void } | undefined> {
    this.#enter();
    try {
      if (!this.#made && !isKept(this.#settings)) {
        this.#leave();
        return undefined;
      }
      const made = await (this.#made ?? this.#decide(await idsFor('auto', caller(), { uid: 0, gid: 0 })));
      refuseDead(made);
      this.#below ??= lookBelow(made);
      return { made, below: (await this.#below).fd, release: () => this.#leave() };
    } catch (error) {
      this.#below = undefined;
      this.#leave();
      throw error;
    }
  }

  async #close(): Promise<Made | undefined> {
    const made = await this.#made?.catch(() => undefined);
    const below = await this.#below?.catch(() => undefined);
    this.#made = this.#below = undefined;
    await below?.close();
    return made;
  }

  async #finish(): Promise<void> {
    await this.#cleanUp(await this.#close());
    this.#released?.();
  }

  async #cleanUp(made: Made | undefined): Promise<void> {
    const { ownUpper, upper, frozen } = this.#settings;
    // While there are namespaces in which all of its files can be removed.
    for (const layer of frozen) await layer.release(made?.owner);
    if (ownUpper && made) await emptyDirectory(upper, made.owner).catch(() => {});
    if (made) await closeRoot(made);
    if (ownUpper) await removeTree(upper);
    this.#settings.hold?.release();
  }

  /**
   * Mounts it on a directory of the host, for the host's own tools; disposing the result unmounts it. Owners are seen as they are outside. What is
   * running in it goes on. Needs CAP_SYS_ADMIN: ERR_CLOISTER_MOUNT. The mount outlives this process if that is killed.
   */
  async mount(target: string): Promise<AsyncDisposable> {
    check.absolutePath(target, 'target');
    const ids = this.#ids ?? (await idsFor(this.#settings.idMap, caller(), { uid: 0, gid: 0 }));
    const use = await this.use(ids);
    if (ids !== this.#ids) ids.release();
    try {
      const unmount = await mountAt(use, target);
      let end: Promise<void> | undefined;
      return {
        [Symbol.asyncDispose]: () => {
          end ??= unmount().finally(() => use.release());
          return end;
        },
      };
    } catch (error) {
      use.release();
      throw error;
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
    const held = await this.#read();
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
      const held = await root.#read();
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
    check.record(options, 'options');
    check.onlyKeys(options, '', ['filter', 'dryRun']);
    const { filter, dryRun } = options;
    if (filter !== undefined && typeof filter !== 'function') throw optionError('filter', 'a function of a change', filter);
    if (dryRun !== undefined) check.flag(dryRun, 'dryRun');
    const held = await this.#read();
    if (!held) return { applied: [], skipped: [], conflicts: [] };
    try {
      return await applyChanges(held.made, held.below, this.#settings, target, { filter, dryRun }, this.#marks);
    } finally {
      held.release();
    }
  }

  /**
   * What has been written as a layer of a store, by diff(). Its parent is the last of the root's layers, where all of them are layers of that
   * store. A fork has, between the two, a layer for what was written before each fork: its line of parents is the whole.
   */
  async commit(store: LayerStore): Promise<Layer> {
    if (!(store instanceof LayerStore)) throw optionError('store', 'a LayerStore', store);
    const held = await this.#read();
    try {
      const { hold, frozen } = this.#settings;
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
    if (this.#settings.driver.name === 'aufs') {
      // What was written would be a layer with whiteouts in overlayfs's form.
      throw new IsolationError('ERR_CLOISTER_UNSUPPORTED', 'fork: not with aufs in this version', { hint: "Use driver 'overlay' for roots that are forked." });
    }
    const held = await this.#read();
    try {
      const { upper, ownUpper, frozen, ...settings } = this.#settings;
      const copy = held && (await freeze(held.made, held.below, this.#settings));
      const fork = new OverlayRootfs({
        ...settings,
        hold: settings.hold?.retain(),
        frozen: [...frozen.map((layer) => layer.retain()), ...(copy ? [copy] : [])],
        ownUpper,
        upper: ownUpper ? makeDiskUpper() : 'tmpfs',
        volatile: ownUpper,
        since: held?.made.since ?? settings.since,
      });
      await fork.#begin(settings.idMap !== 'auto');
      return fork;
    } finally {
      held?.release();
    }
  }

  /** Throws away what has been written. ERR_CLOISTER_BUSY while something runs in it. */
  async reset(): Promise<void> {
    this.#enter();
    try {
      if (this.#users > 1) {
        throw new IsolationError('ERR_CLOISTER_BUSY', 'a root that is in use cannot be reset', {
          hint: 'Wait until what runs in it, or reads its changes, has ended.',
        });
      }
      const made = await this.#close();
      if (!made && !isKept(this.#settings)) return;
      const { upper } = this.#settings;
      const ids = made?.ids.retain();
      if (upper !== 'tmpfs') await emptyDirectory(upper, made?.owner);
      // What the last mount has left there: a volatile one forbids the next.
      if (isKept(this.#settings)) await emptyDirectory(workOf(upper), made?.owner);
      if (made) await closeRoot(made);
      if (ids) await this.#decide(ids);
    } finally {
      this.#leave();
    }
  }

  /**
   * The layers, the writable one first, then those below it in order. One without a path of the host's is told as 'tmpfs' or 'frozen'. With
   * aufs `attributes` are its permission and attributes: aufs(5), "Branch Syntax".
   */
  async branches(): Promise<Branch[]> {
    const { layers, writableLayers = [], frozen, upper } = this.#settings;
    const below = layers ?? (await hostRoot(this.#settings.hide, this.#settings.driver)).shown.map(({ path }) => path);
    const branch = (path: string, writable: boolean): Branch => ({ path, writable, attributes: attributesOf(this.#settings, writable, false) });
    return [
      { path: upper, writable: true, attributes: attributesOf(this.#settings, true, true) },
      ...frozen.map(() => branch('frozen', false)),
      ...(layers ? [...below].reverse() : below).map((path) => branch(path, writableLayers.includes(path))),
    ];
  }

  /**
   * One more layer, also while programs run in the root. `index`: where among `branches()`; default: right below the writable one. What is written
   * to a `writable` one is not among `changes()`. With aufs only: else it rejects with ERR_CLOISTER_UNSUPPORTED. aufs(5), "add:index:BRANCH".
   */
  async addBranch(directory: string, options: { writable?: boolean; index?: number } = {}): Promise<void> {
    checkBranch(this.#settings.driver, 'addBranch', directory, options);
    const position = positionOf(options.index, this.#settings);
    const { layers = [], writableLayers = [], frozen } = this.#settings;
    const { writable = false } = options;
    const index = 1 + frozen.length + layers.length - position;
    await this.#changeLayers(
      directory,
      { what: 'add', index, writable },
      {
        layers: layers.toSpliced(position, 0, directory),
        writableLayers: writable ? [...writableLayers, directory] : writableLayers,
      },
    );
  }

  /** A layer less. ERR_CLOISTER_BUSY while something uses the root. With aufs only: else it rejects with ERR_CLOISTER_UNSUPPORTED. aufs(5), "del:dir". */
  async removeBranch(directory: string): Promise<void> {
    checkBranch(this.#settings.driver, 'removeBranch', directory, {});
    const { layers = [], writableLayers = [] } = this.#settings;
    if (!layers.includes(directory) || layers.length === 1) throw optionError('directory', 'a layer of this root, and not its only one', directory);
    if (this.#users > 0)
      throw new IsolationError('ERR_CLOISTER_BUSY', 'a root that is in use cannot lose a layer', {
        path: directory,
        hint: 'Wait until what runs in it has ended.',
      });
    await this.#changeLayers(
      directory,
      { what: 'del' },
      {
        layers: layers.filter((layer) => layer !== directory),
        writableLayers: writableLayers.filter((layer) => layer !== directory),
      },
    );
  }

  async #changeLayers(
    directory: string,
    change: Parameters<typeof changeMounted>[2],
    settings: Pick<RootSettings, 'layers' | 'writableLayers'>,
  ): Promise<void> {
    this.#enter();
    try {
      const made = await this.#made;
      if (made) await changeMounted(made, directory, change);
      this.#settings = { ...this.#settings, ...settings };
      const below = await this.#below;
      this.#below = undefined;
      await below?.close();
      if (made) this.#made = Promise.resolve({ ...made, parts: relayered(made.parts, this.#settings) });
    } finally {
      this.#leave();
    }
  }

  /** Takes the mounts away, and an upper of our own; while a spawn uses it, the last of them does. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#disposed) {
      this.#disposed = true;
      if (this.#users === 0) await this.#finish();
    }
    if (this.#users === 0) await this.#end;
  }
}

/** What a spawn needs of a root that it borrows. Descriptors are the root's. */
export interface RootUse extends Made {
  release(): void;
}

function relayered([part, ...others]: readonly PartSource[], settings: RootSettings): readonly PartSource[] {
  if (!part) return others;
  const layers = [...(settings.layers ?? [])].reverse().map((path) => directoryLower(path, settings));
  return [{ ...part, lowers: [...part.lowers.filter(({ kind }) => kind !== 'directory'), ...layers] }, ...others];
}

/** Nothing of a mount can be had when the program that answers for it has been killed. reset() starts another. */
function refuseDead({ driver, servers }: Made): void {
  const over = servers.map((server) => server.over).find((how) => how !== undefined);
  if (over === undefined) return;
  throw new IsolationError('ERR_CLOISTER_ROOTFS', `the root has lost its program ${driver.name}, which has ended: ${over}`, {
    step: 'use the root',
    hint: 'reset() begins anew, without what was written; a writable layer in a directory of yours is still there.',
  });
}

/** With 'auto', the ids of a directory that is kept are those that it has from last time. */
function ownerOf(directory: string): number | undefined {
  return statSync(directory, { throwIfNoEntry: false })?.uid;
}
