import { basename, dirname, join } from 'node:path';
import { IsolationError } from '../errors.js';
import { caller } from '../host/caller.js';
import type { IdMap } from '../namespace/types.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd, type Slot } from '../plan/steps.js';
import { type Ids, rootOutside } from '../security/id-map.js';
import { beginningOf, type Moment } from './beginning.js';
import { assemble, belowOf } from './below.js';
import type { Driver } from './drivers/driver.js';
import type { ServerOrder } from './drivers/fuse-overlayfs.js';
import { type Server, slotsOf, startServers } from './drivers/fuse-server.js';
import { openDirectory } from './filesystem.js';
import type { FrozenLayer } from './frozen-layer.js';
import { hostRoot, ordinaryHostRoot, privilegedHostRoot, privilegedParts, withoutUserXattrs } from './host-root.js';
import { copyHostTree, foreignFiles, hideOnHost, hostPart } from './host-tree.js';
import type { LayerHold } from './layer-hold.js';
import { type Lower, type LowerContext, layersByName, openLower, type PartSource, rootAttributes } from './lowers.js';
import { mountAbilities } from './mount-abilities.js';
import { enterOwner, type Owner, shareOwner } from './ordinary-owner.js';
import { directoryUpper, type OverlayMount, overlay, tmpfsUpper, type UpperSpace, upperName } from './overlay.js';
import type { RootMount } from './root-mount.js';
import { beginMaking, makeStore, type StoredMounts, storeMounts } from './stage.js';

/** OVL_MAX_STACK, fs/overlayfs/params.c. */
const mostLayers = 500;

/** What a root is made of; options that have been checked. */
export interface RootSettings {
  readonly driver: Driver;
  /** Base first; undefined: the host's tree. */
  readonly layers: readonly string[] | undefined;
  /** Directories that have layers of a store in them. */
  readonly stores: readonly string[];
  /** Of those layers, those that are written to as well: only with aufs. */
  readonly writableLayers?: readonly string[];
  /** Of those layers that are a store's. */
  readonly hold: LayerHold | undefined;
  /** Layers that were writable once, above those; the last one uppermost. */
  readonly frozen: readonly FrozenLayer[];
  readonly hide: readonly string[];
  /** 'tmpfs', or a directory. */
  readonly upper: string;
  /** The directory is one of our own: upper and work directories are made in it. */
  readonly ownUpper: boolean;
  readonly size: number;
  readonly volatile: boolean;
  readonly idMap: 'auto' | 'self' | IdMap;
  /** When the root began that this one is a fork of. */
  readonly since?: Moment | undefined;
}

/** The writable layer is a directory of the caller's, which may have something in it and stays. */
export const isKept = ({ upper, ownUpper }: RootSettings): boolean => upper !== 'tmpfs' && !ownUpper;

/** The mounts of a root that has been made: each is copied for each spawn, so all share one superblock and one upper. */
export interface Made extends StoredMounts {
  readonly driver: Driver;
  /** Programs that answer for the mounts. */
  readonly servers: readonly Server[];
  readonly ids: Ids;
  /** Of an ordinary user: the namespaces that own the mounts. A spawn has to be in them. */
  readonly owner: Owner | undefined;
  readonly missing: readonly string[];
  /** In which the upper directories are. */
  readonly base: number;
  readonly parts: readonly PartSource[];
  /** Of the host's root, for a privileged caller: a duplicate. */
  readonly kit: number | undefined;
  /** What lies below the writable layers, where that had to be mounted together with them. */
  readonly below: number | undefined;
  readonly since: Moment;
}

interface Built {
  readonly mounts: readonly RootMount[];
  readonly missing: readonly string[];
  readonly base: Slot;
  readonly parts: readonly PartSource[];
  readonly store: Slot | undefined;
  /** Borrowed. */
  readonly kit: number | undefined;
  readonly below: RootMount | undefined;
  readonly servers: readonly ServerOrder[];
}

function checkCount(settings: RootSettings): void {
  const count = (settings.layers?.length ?? 0) + settings.frozen.length;
  if (settings.driver.name === 'overlay' && count > mostLayers) {
    throw new IsolationError('ERR_CLOISTER_ROOTFS', `a root of ${count} layers: overlayfs takes ${mostLayers} at the most`, {
      step: 'mount the overlay',
      hint: 'A fork has one layer more than the root that it is of. Put some layers together into one.',
    });
  }
}

/** Takes the ids over, also when it fails. `trial`: it is thrown away at once. */
export async function makeRoot(settings: RootSettings, ids: Ids, trial = false): Promise<Made> {
  try {
    checkCount(settings);
    return await (caller().privileged ? makePrivileged(settings, ids, trial) : makeOrdinary(settings, ids, trial));
  } catch (error) {
    ids.release();
    throw error;
  }
}

/** Its writable layer is nobody's when this resolves. */
export async function closeRoot({ mounts, ids, base, store, below, kit, servers }: Made): Promise<void> {
  await native().closeDescriptors([...mounts.map((mount) => mount.fd), base, store, below, kit].filter((fd) => fd !== undefined));
  await Promise.all(servers.map((server) => server.end()));
  ids.release();
}

async function makePrivileged(settings: RootSettings, ids: Ids, trial: boolean): Promise<Made> {
  const plan = new PlanBuilder();
  beginMaking(plan);
  const userns = ids.userns === undefined ? undefined : native().duplicate(ids.userns, 0);
  if (userns !== undefined) plan.slot('user namespace', userns);
  return keep(plan, settings, await overlays(plan, settings, ids.map, userns, false, trial), ids);
}

async function makeOrdinary(settings: RootSettings, ids: Ids, trial: boolean): Promise<Made> {
  const { owner, release } = await shareOwner(ids);
  try {
    const plan = new PlanBuilder();
    enterOwner(plan, owner);
    plan.label('become root inside').add('setresgid', [0, 0, 0]);
    plan.add('setresuid', [0, 0, 0]);
    if (!mountAbilities().detached) plan.label('make a mount namespace').add('unshare', [k.CLONE_NEWNS]);
    const built = await overlays(plan, settings, ids.map, undefined, true, trial);
    return await keep(plan, settings, built, { ...ids, release: () => [ids.release(), release()] }, owner);
  } catch (error) {
    release();
    throw error;
  }
}

async function overlays(plan: PlanBuilder, settings: RootSettings, map: IdMap, userns: number | undefined, userxattr: boolean, trial: boolean): Promise<Built> {
  const { layers, upper, size, volatile, hide, driver } = settings;
  const root = layers === undefined ? await hostRoot(hide, driver) : undefined;
  const owner = userxattr ? undefined : rootOutside(map);
  const isOneLayer = root !== undefined && driver.host === 'one layer';
  const needsPlace = !mountAbilities().detached;
  // For the root, and for what lies below its writable layer.
  const hostTrees = isOneLayer && userxattr && needsPlace ? [copyHostTree(plan), copyHostTree(plan)] : [];
  const store = needsPlace ? makeStore(plan) : undefined;
  const space = upper === 'tmpfs' ? tmpfsUpper(plan, size, owner, driver) : directoryUpper(plan, upper, owner, driver);
  const above = (target: string): Lower[] => settings.frozen.flatMap((layer) => layer.lowerAt(target)).reverse();
  const kitFd = userxattr ? undefined : root?.kit?.fd;
  const kit = kitFd === undefined ? undefined : plan.slot('kit', native().duplicate(kitFd, 0));
  const context: LowerContext = { privileged: !userxattr, kit, base: space.base, userns, stage: space.stage, held: new Map(), hostTrees };
  let made: Pick<Built, 'mounts' | 'missing' | 'parts'>;
  if (isOneLayer) {
    hideOnHost(plan, space, root, userxattr);
    const part = hostPart(root, map, userxattr, above('/'));
    const opened = part.lowers.map((lower) => openLower(plan, lower, context));
    plan.label('overlay the host', '/');
    const mount = overlay(plan, space, { lowers: opened, userxattr, volatile: volatile && !trial, root: part.root });
    made = { mounts: [{ target: '/', mount }], missing: userxattr ? [...root.missing, foreignFiles] : root.missing, parts: [part] };
  } else if (root && userxattr) {
    made = ordinaryHostRoot(plan, root, space, above);
  } else if (root) {
    const parts = privilegedParts(root, map, above);
    made = { mounts: privilegedHostRoot(plan, root, kit, space, userns, parts), missing: root.missing, parts };
  } else {
    const lowers: Lower[] = [...above('/'), ...[...(layers ?? [])].reverse().map((path) => directoryLower(path, settings))];
    const byName = layersByName(plan, lowers, context);
    const opened = lowers.slice(0, lowers.length - (byName?.names.length ?? 0)).map((lower) => {
      plan.label('use a layer', lower.kind === 'directory' ? lower.path : undefined);
      return openLower(plan, lower, context);
    });
    plan.label('mount the overlay', layers?.join(':'));
    // An upper that has been volatile once is refused from then on (ovl_check_incompat): not for a mere trial.
    const own = upper === 'tmpfs' || settings.ownUpper;
    const attributes = own ? rootAttributes('/', lowers, userxattr ? 'ordinary' : map) : undefined;
    const writableLowers = new Set(opened.filter((_, index) => (lowers[index] as { writable?: boolean }).writable));
    const request = { lowers: opened, byName, writableLowers, userxattr, volatile: volatile && !trial, root: attributes };
    const mount = own ? overlay(plan, space, request) : inDirectory(plan, upper, space, request, settings.idMap === 'auto' ? owner : undefined);
    made = {
      mounts: [{ target: '/', mount }],
      missing: missingOf(settings, userns, userxattr),
      parts: [{ target: '/', upper: own ? upperName(0) : '', lowers, root: attributes }],
    };
  }
  const seen = store && belowOf(plan, made.parts, context);
  if (!made.mounts.some(({ isAttached }) => isAttached)) space.stage.clear();
  const below = seen && assemble(plan, seen);
  const { servers } = space.stage;
  return { ...made, servers, base: space.base, store: store && storeMounts(plan, store, [...made.mounts, ...(below ? [below] : [])]), kit: kitFd, below };
}

export const directoryLower = (path: string, { writableLayers, stores }: Pick<RootSettings, 'writableLayers' | 'stores'>): Lower => ({
  kind: 'directory',
  path,
  writable: writableLayers?.includes(path) ?? false,
  within: stores.find((store) => path.startsWith(`${store}/`)),
});

function missingOf({ driver, upper }: RootSettings, userns: number | undefined, userxattr: boolean): string[] {
  const missing: string[] = [];
  if (driver.name === 'overlay' && userxattr && upper === 'tmpfs' && !mountAbilities().tmpfsUserXattrs) missing.push(withoutUserXattrs);
  if (userns !== undefined && !driver.mapsOwners) {
    missing.push(`/ (owners: ${driver.name} does not map ids, so files of its layers belong to nobody inside, unless idMap has their owners)`);
  }
  return missing;
}

export const workOf = (upper: string): string => join(upper, '..', `.${upper.split('/').at(-1)}.work`);

/** An upper of the caller's: its own directory is the layer, the work directory is made beside it. */
function inDirectory(plan: PlanBuilder, upper: string, { base, stage }: UpperSpace, request: OverlayMount, owner: UpperSpace['owner']): Slot {
  const work = workOf(upper);
  plan.label('use the writable layer', upper);
  plan.add('mkdirat', [cwd, work, 0o700], { tolerate: [k.EEXIST] });
  // Root inside must be able to write to it. Only the directory itself: what is in it has the owners that it has.
  if (owner) plan.add('fchownat', [base, '', owner.uid, owner.gid, k.AT_EMPTY_PATH]);
  const place = { from: cwd, path: dirname(upper), upper: basename(upper), work: basename(work) };
  // What lies in it is removed by the kernel: in a directory that others write to it may be a symlink of theirs.
  const writable = { upper: base, work: openDirectory(plan, cwd, work, k.O_NOFOLLOW), place, isKept: true, isPlaceless: false };
  return stage.driver.mount(plan, stage, { ...request, writable });
}

async function keep(plan: PlanBuilder, settings: RootSettings, built: Built, ids: Ids, owner?: Owner): Promise<Made> {
  const { mounts, missing, base, parts, store, below, servers } = built;
  for (const slot of [...mounts.map(({ mount }) => mount), base, store, below?.mount, ...slotsOf(servers)]) if (slot) plan.keep(slot);
  const kit = built.kit === undefined ? undefined : native().duplicate(built.kit, 0);
  try {
    const fdOf = await runPlan(plan);
    const since = settings.since ?? beginningOf(fdOf(base), isKept(settings) ? settings.upper : undefined);
    const files = {
      mounts: mounts.map(({ target, isFile, mount }) => ({ target, isFile, fd: fdOf(mount) })),
      store: store && fdOf(store),
      base: fdOf(base),
      below: below && fdOf(below.mount),
    };
    return {
      ...files,
      driver: settings.driver,
      servers: await startServers(servers, fdOf, owner).catch((error: unknown) => {
        for (const fd of [...files.mounts.map((mount) => mount.fd), files.store, files.base, files.below]) if (fd !== undefined) native().close(fd);
        throw error;
      }),
      ids,
      owner,
      missing,
      parts,
      kit,
      since,
    };
  } catch (error) {
    if (kit !== undefined) native().close(kit);
    throw error;
  }
}
