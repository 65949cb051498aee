import { join } from 'node:path';
import { caller } from '../host/caller.js';
import type { IdMap } from '../namespace/types.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd, type Slot } from '../plan/steps.js';
import { type Ids, rootOutside } from '../security/id-map.js';
import { beginningOf, type Moment } from './beginning.js';
import { openDirectory } from './filesystem.js';
import type { FrozenLayer } from './frozen-layer.js';
import { hostRoot, ordinaryHostRoot, privilegedHostRoot, privilegedParts } from './host-root.js';
import type { LayerHold } from './layer-hold.js';
import { type Lower, type LowerContext, openLower, type PartSource, rootAttributes } from './lowers.js';
import { enterOwner, type Owner, shareOwner } from './ordinary-owner.js';
import { type OverlayMount, overlay, overlayOf, tmpfsUpper, type UpperSpace, upperName } from './overlay.js';
import type { RootMount } from './root-mount.js';

/** What a root is made of; options that have been checked. */
export interface RootSettings {
  /** Base first; undefined: the host's tree. */
  readonly layers: readonly string[] | undefined;
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
export interface Made {
  readonly mounts: readonly { readonly target: string; readonly fd: number }[];
  readonly ids: Ids;
  /** Of an ordinary user: the namespaces that own the mounts. A spawn has to be in them. */
  readonly owner: Owner | undefined;
  readonly missing: readonly string[];
  /** In which the upper directories are. */
  readonly base: number;
  readonly parts: readonly PartSource[];
  /** Of the host's root, for a privileged caller: a duplicate. */
  readonly kit: number | undefined;
  readonly since: Moment;
}

interface Built {
  readonly mounts: readonly RootMount[];
  readonly missing: readonly string[];
  readonly base: Slot;
  readonly parts: readonly PartSource[];
  readonly kit: number | undefined;
}

/** Takes the ids over, also when it fails. `trial`: it is thrown away at once. */
export async function makeRoot(settings: RootSettings, ids: Ids, trial = false): Promise<Made> {
  try {
    return await (caller().privileged ? makePrivileged(settings, ids, trial) : makeOrdinary(settings, ids, trial));
  } catch (error) {
    ids.release();
    throw error;
  }
}

export function closeRoot({ mounts, ids, base, kit }: Made): void {
  for (const fd of [...mounts.map((mount) => mount.fd), base, ...(kit === undefined ? [] : [kit])]) native().close(fd);
  ids.release();
}

async function makePrivileged(settings: RootSettings, ids: Ids, trial: boolean): Promise<Made> {
  const plan = new PlanBuilder().in('parent');
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
    const built = await overlays(plan, settings, ids.map, undefined, true, trial);
    return await keep(plan, settings, built, { ...ids, release: () => [ids.release(), release()] }, owner);
  } catch (error) {
    release();
    throw error;
  }
}

async function overlays(plan: PlanBuilder, settings: RootSettings, map: IdMap, userns: number | undefined, userxattr: boolean, trial: boolean): Promise<Built> {
  const { layers, upper, size, volatile, hide } = settings;
  const root = layers === undefined ? await hostRoot(hide) : undefined;
  const owner = userxattr ? undefined : rootOutside(map);
  let space: UpperSpace;
  if (upper === 'tmpfs') {
    space = tmpfsUpper(plan, size, owner);
  } else {
    plan.label('use the writable layer', upper);
    space = { base: openDirectory(plan, cwd, upper), owner, count: 0 };
  }
  const above = (target: string): Lower[] => settings.frozen.flatMap((layer) => layer.lowerAt(target)).reverse();
  if (root && userxattr) return { ...ordinaryHostRoot(plan, root, space, above), base: space.base, kit: undefined };
  if (root) {
    const parts = privilegedParts(root, map, above);
    const kitFd = (root.kit as { fd: number }).fd;
    const kit = plan.slot('kit', native().duplicate(kitFd, 0));
    const mounts = privilegedHostRoot(plan, root, kit, space, userns, parts);
    return { mounts, missing: root.missing, base: space.base, parts, kit: native().duplicate(kitFd, 0) };
  }
  const lowers: Lower[] = [...above('/'), ...[...(layers ?? [])].reverse().map((path) => ({ kind: 'directory', path }) as const)];
  const context: LowerContext = { privileged: !userxattr, kit: undefined, base: space.base, userns, held: new Map() };
  const opened = lowers.map((lower) => {
    plan.label('use a layer', lower.kind === 'directory' ? lower.path : undefined);
    return openLower(plan, lower, context);
  });
  plan.label('mount the overlay', layers?.join(':'));
  // An upper that has been volatile once is refused from then on (ovl_check_incompat): not for a mere trial.
  const own = upper === 'tmpfs' || settings.ownUpper;
  const attributes = own ? rootAttributes('/', lowers, userxattr ? 'ordinary' : map) : undefined;
  const request = { lowers: opened, userxattr, volatile: volatile && !trial, root: attributes };
  const mount = own ? overlay(plan, space, request) : inDirectory(plan, upper, space.base, request, settings.idMap === 'auto' ? owner : undefined);
  const parts = [{ target: '/', upper: own ? upperName(0) : '', lowers, root: attributes }];
  return { mounts: [{ target: '/', mount }], missing: [], base: space.base, parts, kit: undefined };
}

export const workOf = (upper: string): string => join(upper, '..', `.${upper.split('/').at(-1)}.work`);

/** An upper of the caller's: its own directory is the layer, the work directory is made beside it. */
function inDirectory(plan: PlanBuilder, upper: string, base: Slot, request: OverlayMount, owner: UpperSpace['owner']): Slot {
  const work = workOf(upper);
  plan.label('use the writable layer', upper);
  plan.add('mkdirat', [cwd, work, 0o700], { tolerate: [k.EEXIST] });
  // Root inside must be able to write to it. Only the directory itself: what is in it has the owners that it has.
  if (owner) plan.add('fchownat', [base, '', owner.uid, owner.gid, k.AT_EMPTY_PATH]);
  return overlayOf(plan, request, base, openDirectory(plan, cwd, work));
}

async function keep(plan: PlanBuilder, settings: RootSettings, { mounts, missing, base, parts, kit }: Built, ids: Ids, owner?: Owner): Promise<Made> {
  for (const { mount } of mounts) plan.keep(mount);
  plan.keep(base);
  try {
    const fdOf = await runPlan(plan);
    const since = settings.since ?? beginningOf(fdOf(base), isKept(settings) ? settings.upper : undefined);
    return { mounts: mounts.map(({ target, mount }) => ({ target, fd: fdOf(mount) })), ids, owner, missing, base: fdOf(base), parts, kit, since };
  } catch (error) {
    if (kit !== undefined) native().close(kit);
    throw error;
  }
}
