import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import type { Readable } from 'node:stream';
import { IsolationError, optionError } from '../errors.js';
import { caller } from '../host/caller.js';
import type { Layer, LayerStore } from '../later.js';
import type { IdMap } from '../namespace/types.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd, type Slot } from '../plan/steps.js';
import { checkIdMap, type Ids, idsFor, rootOutside, sameMap } from '../security/id-map.js';
import { leaseRange } from '../security/id-range.js';
import * as check from '../spawn/validate.js';
import { unavailable } from '../unavailable.js';
import { parseBytes } from '../units.js';
import { openDirectory } from './filesystem.js';
import { hostRoot, ordinaryHostRoot, privilegedHostRoot, withoutUserXattrs } from './host-root.js';
import { mountAbilities, tryMounts } from './mount-abilities.js';
import { enterOwner, type Owner, shareOwner } from './ordinary-owner.js';
import { layer, type OverlayMount, overlay, overlayOf, tmpfsUpper, type UpperSpace } from './overlay.js';
import { defaultUpperSize } from './ready.js';
import type { RootMount } from './root-mount.js';
import { beginMaking, Stage, type StoredMounts, storeMounts } from './stage.js';
import type { ApplyReport, Branch, Change, OverlayOptions } from './types.js';

interface Checked {
  /** undefined: the host's tree. */
  readonly layers: readonly string[] | undefined;
  readonly hide: readonly string[];
  readonly upper: string;
  readonly size: number;
  readonly volatile: boolean;
  readonly idMap: 'auto' | 'self' | IdMap;
}

/** The mounts of a root that has been made: each is copied for each spawn, so all share one superblock and one upper. */
interface Made extends StoredMounts {
  readonly ids: Ids;
  /** Of an ordinary user: the namespaces that own the mounts. A spawn has to be in them. */
  readonly owner: Owner | undefined;
  readonly missing: readonly string[];
}

/**
 * A copy-on-write root: directories as read-only layers, and a writable layer above them. Many spawns can use one; they see
 * each other's writes. Borrowed by a spawn, never disposed by it: `await using`, or call `[Symbol.asyncDispose]`.
 *
 * Needs CAP_SYS_ADMIN, or unprivileged user namespaces. overlayfs: Documentation/filesystems/overlayfs.rst.
 */
export class OverlayRootfs implements AsyncDisposable {
  readonly driver: 'overlay' | 'aufs' | 'fuse-overlayfs' = 'overlay';
  readonly #options: Checked;
  readonly #disk: string | undefined;
  #ids: Ids | undefined;
  #made: Promise<Made> | undefined;
  #users = 0;
  #disposed = false;
  #released: (() => void) | undefined;
  readonly #end: Promise<void>;

  private constructor(options: Checked, disk: string | undefined) {
    this.#options = options;
    this.#disk = disk;
    this.#end = new Promise((resolve) => {
      this.#released = resolve;
    });
  }

  /**
   * Layers are directories, base first. `upper`: 'tmpfs' (default; `size` 512M), 'disk' (a directory of our own, deleted at the
   * end; `size` is refused), or the path of a directory, which is kept and must be on the file system of its parent.
   *
   * Throws `TypeError` for wrong options, `IsolationError` ERR_CLOISTER_ROOTFS if the kernel refuses the layers.
   */
  static async create(options: OverlayOptions): Promise<OverlayRootfs> {
    check.record(options, 'options');
    check.onlyKeys(options, '', ['layers', 'upper', 'size', 'driver', 'volatile', 'idMap']);
    const layers = check.list(options.layers, 'layers', check.absolutePath);
    if (layers.length === 0) throw optionError('layers', 'at least one directory', layers);
    return OverlayRootfs.#create(options, layers, []);
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

  static async #create(options: Omit<OverlayOptions, 'layers'>, layers: readonly string[] | undefined, hide: readonly string[]): Promise<OverlayRootfs> {
    const driver = options.driver ?? 'auto';
    if (driver !== 'auto' && driver !== 'overlay') throw optionError('driver', "'auto' or 'overlay' in this version", driver);
    const upper = options.upper ?? 'tmpfs';
    if (upper !== 'tmpfs' && upper !== 'disk' && !(typeof upper === 'string' && isAbsolute(upper))) {
      throw optionError('upper', "'tmpfs', 'disk' or the absolute path of a directory", upper);
    }
    if (options.size !== undefined && upper !== 'tmpfs') {
      throw optionError('size', "nothing unless upper is 'tmpfs': a directory's size needs a project quota, which this version cannot set", options.size);
    }
    const disk = upper === 'disk' ? makeDiskUpper() : undefined;
    const root = new OverlayRootfs(
      {
        layers,
        hide,
        upper: disk ?? upper,
        size: options.size === undefined ? defaultUpperSize : parseBytes(options.size, 'size'),
        volatile: options.volatile === undefined ? upper === 'disk' : check.flag(options.volatile, 'volatile'),
        idMap: options.idMap === undefined ? 'auto' : checkIdMap(options.idMap, 'idMap'),
      },
      disk,
    );
    try {
      await tryMounts();
      // With 'auto' the ids are those of the first spawn. Trying now tells at once what the kernel thinks of these layers.
      const kept = options.idMap === undefined && upper.startsWith('/') && caller().mayMapRanges ? await leaseRange(ownerOf(upper)) : undefined;
      if (kept) await root.#decide(kept);
      else if (options.idMap === undefined) await root.#try();
      else await root.#decide(await idsFor(root.#options.idMap, caller(), { uid: 0, gid: 0 }));
    } catch (error) {
      root.#cleanUp(undefined);
      throw error;
    }
    return root;
  }

  async #try(): Promise<void> {
    const made = await this.#make(await idsFor('auto', caller(), { uid: 0, gid: 0 }), true);
    closeAll(made);
  }

  /** Takes the ids over. */
  #decide(ids: Ids): Promise<Made> {
    this.#ids = ids;
    this.#made = this.#make(ids);
    return this.#made;
  }

  async #make(ids: Ids, trial = false): Promise<Made> {
    try {
      return await (caller().privileged ? this.#makePrivileged(ids, trial) : this.#makeOrdinary(ids, trial));
    } catch (error) {
      ids.release();
      throw error;
    }
  }

  async #makePrivileged(ids: Ids, trial: boolean): Promise<Made> {
    const plan = new PlanBuilder();
    beginMaking(plan);
    const owner = rootOutside(ids.map);
    const userns = ids.userns === undefined ? undefined : native().duplicate(ids.userns, 0);
    if (userns !== undefined) plan.slot('user namespace', userns);
    const { mounts, missing } = await this.#overlays(plan, owner, userns, false, trial);
    return this.#keep(plan, mounts, ids, missing);
  }

  async #makeOrdinary(ids: Ids, trial: boolean): Promise<Made> {
    const { owner, release } = await shareOwner(ids);
    try {
      const plan = new PlanBuilder();
      enterOwner(plan, owner);
      plan.label('become root inside').add('setresgid', [0, 0, 0]);
      plan.add('setresuid', [0, 0, 0]);
      if (!mountAbilities().detached) plan.label('make a mount namespace').add('unshare', [k.CLONE_NEWNS]);
      const { mounts, missing } = await this.#overlays(plan, undefined, undefined, true, trial);
      return await this.#keep(plan, mounts, { ...ids, release: () => [ids.release(), release()] }, missing, owner);
    } catch (error) {
      release();
      throw error;
    }
  }

  async #overlays(
    plan: PlanBuilder,
    owner: UpperSpace['owner'],
    userns: number | undefined,
    userxattr: boolean,
    trial: boolean,
  ): Promise<{ mounts: RootMount[]; missing: readonly string[] }> {
    const { layers, upper, size, volatile, hide } = this.#options;
    const root = layers === undefined ? await hostRoot(hide) : undefined;
    const makeSpace = (): UpperSpace => {
      if (upper === 'tmpfs') return tmpfsUpper(plan, size, owner);
      plan.label('use the writable layer', upper);
      return { base: openDirectory(plan, cwd, upper), owner, stage: new Stage(plan), count: 0 };
    };
    if (root && userxattr) return ordinaryHostRoot(plan, root, makeSpace, this.#options.size);
    const space = makeSpace();
    if (root) {
      const kit = root.kit && plan.slot('kit', native().duplicate(root.kit.fd, 0));
      return { mounts: privilegedHostRoot(plan, root, kit, space, userns), missing: root.missing };
    }
    const lowers = [...(layers ?? [])].reverse().map((path) => {
      plan.label('use a layer', path);
      return userns === undefined ? openDirectory(plan, cwd, path) : layer(plan, space.stage, path, userns);
    });
    plan.label('mount the overlay', layers?.join(':'));
    // An upper that has been volatile once is refused from then on (ovl_check_incompat): not for a mere trial.
    const request = { lowers, userxattr, volatile: volatile && !trial };
    const mount = upper === 'tmpfs' || upper === this.#disk ? overlay(plan, space, request) : this.#inDirectory(plan, space.stage, upper, request, owner);
    space.stage.clear();
    return { mounts: [{ target: '/', mount }], missing: userxattr && upper === 'tmpfs' && !mountAbilities().tmpfsUserXattrs ? [withoutUserXattrs] : [] };
  }

  /** An upper of the caller's: its own directory is the layer, the work directory is made beside it. */
  #inDirectory(plan: PlanBuilder, stage: Stage, upper: string, request: OverlayMount, owner: UpperSpace['owner']): Slot {
    const work = join(upper, '..', `.${upper.split('/').at(-1)}.work`);
    plan.label('use the writable layer', upper);
    plan.add('mkdirat', [cwd, work, 0o700], { tolerate: [k.EEXIST] });
    const upperSlot = openDirectory(plan, cwd, upper);
    // Root inside must be able to write to it. Only the directory itself: what is in it has the owners that it has.
    if (owner && this.#options.idMap === 'auto') plan.add('fchownat', [upperSlot, '', owner.uid, owner.gid, k.AT_EMPTY_PATH]);
    return overlayOf(plan, stage, request, upperSlot, openDirectory(plan, cwd, work));
  }

  async #keep(plan: PlanBuilder, mounts: readonly RootMount[], ids: Ids, missing: readonly string[], owner?: Owner): Promise<Made> {
    for (const { mount } of mounts) plan.keep(mount);
    const store = mountAbilities().detached ? undefined : storeMounts(plan, mounts);
    if (store) plan.keep(store);
    const fdOf = await runPlan(plan);
    return {
      mounts: mounts.map(({ target, isFile, mount }) => ({ target, isFile, fd: fdOf(mount) })),
      store: store && fdOf(store),
      ids,
      owner,
      missing,
    };
  }

  /** @internal The ids that its files are owned by, once that has been decided. */
  get ids(): Ids | undefined {
    return this.#ids;
  }

  /** @internal One more spawn, with these ids, uses it. Call `release` once. */
  async use(ids: Ids): Promise<RootUse> {
    if (this.#disposed) throw new IsolationError('ERR_CLOISTER_DISPOSED', 'this OverlayRootfs has been disposed');
    this.#users++;
    try {
      const made = await (this.#made ?? this.#decide(ids.retain()));
      if (!sameMap(ids.map, made.ids.map)) {
        throw optionError('idMap', "'auto', or the map that the OverlayRootfs was made with: its files are owned by those ids", ids.map);
      }
      return { ...made, release: () => this.#leave() };
    } catch (error) {
      this.#leave();
      throw error;
    }
  }

  #leave(): void {
    this.#users--;
    if (this.#users === 0 && this.#disposed) void this.#finish();
  }

  async #finish(): Promise<void> {
    const made = await this.#made?.catch(() => undefined);
    this.#made = undefined;
    this.#cleanUp(made);
    this.#released?.();
  }

  #cleanUp(made: Made | undefined): void {
    if (made) closeAll(made);
    if (this.#disk !== undefined) removeDiskUpper(this.#disk);
  }

  mount(_target: string): Promise<AsyncDisposable> {
    return unavailable('OverlayRootfs.mount');
  }
  // biome-ignore lint/correctness/useYield: it refuses
  async *changes(): AsyncGenerator<Change, void, undefined> {
    await unavailable('OverlayRootfs.changes');
  }
  diff(): Readable {
    throw unavailable.error('OverlayRootfs.diff');
  }
  apply(_target: string, _options?: { filter?: (change: Change) => boolean | Promise<boolean>; dryRun?: boolean }): Promise<ApplyReport> {
    return unavailable('OverlayRootfs.apply');
  }
  commit(_store: LayerStore): Promise<Layer> {
    return unavailable('OverlayRootfs.commit');
  }
  fork(): Promise<OverlayRootfs> {
    return unavailable('OverlayRootfs.fork');
  }
  reset(): Promise<void> {
    return unavailable('OverlayRootfs.reset');
  }
  branches(): Promise<Branch[]> {
    return unavailable('OverlayRootfs.branches');
  }
  addBranch(_directory: string, _options?: { writable?: boolean; index?: number }): Promise<void> {
    return unavailable('OverlayRootfs.addBranch');
  }
  removeBranch(_directory: string): Promise<void> {
    return unavailable('OverlayRootfs.removeBranch');
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

function closeAll({ mounts, store, ids }: Made): void {
  for (const { fd } of mounts) native().close(fd);
  if (store !== undefined) native().close(store);
  ids.release();
}

/** What a spawn needs of a root that it borrows. Descriptors are the root's. */
export interface RootUse extends Made {
  release(): void;
}

/** With 'auto', the ids of a directory that is kept are those that it has from last time. */
function ownerOf(directory: string): number | undefined {
  return statSync(directory, { throwIfNoEntry: false })?.uid;
}

function makeDiskUpper(): string {
  // In a directory that anybody may write to, only a new one is ours: mkdtemp(3) makes it with mode 0700.
  if (!caller().privileged) return mkdtempSync(join(tmpdir(), 'cloister-upper-'));
  mkdirSync('/var/lib/cloister', { recursive: true, mode: 0o700 });
  return mkdtempSync('/var/lib/cloister/upper-');
}

/** Directories without permissions are a program's, or overlayfs's own (ovl_workdir_create): root alone could remove them. */
function removeDiskUpper(directory: string): void {
  const open = (path: string): void => {
    chmodSync(path, 0o700);
    for (const entry of readdirSync(path, { withFileTypes: true })) if (entry.isDirectory()) open(join(path, entry.name));
  };
  if (!caller().privileged) open(directory);
  rmSync(directory, { recursive: true, force: true });
}
