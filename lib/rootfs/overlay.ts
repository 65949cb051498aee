import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import type { Driver, Union } from './drivers/driver.js';
import { cloneMount, inodesOf, newFilesystem, openDirectory } from './filesystem.js';
import { mountAbilities } from './mount-abilities.js';
import { Stage } from './stage.js';

// Layers and writable layers, for whichever driver.

/** Where upper and work directories of one root are made: pairs of directories on one new tmpfs, or in a directory. */
export interface UpperSpace {
  readonly base: Slot;
  /** Whose the upper directories are; undefined: who makes them. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined;
  /** Of these directories and of what is overlaid by them: to be cleared when all overlays are made. */
  readonly stage: Stage;
  count: number;
  /** On a tmpfs of its own. */
  readonly isPlaceless: boolean;
}

export function tmpfsUpper(plan: PlanBuilder, size: number, owner: UpperSpace['owner'], driver?: Driver): UpperSpace {
  plan.label('make the writable layer', 'tmpfs');
  const base = newFilesystem(plan, 'tmpfs', { size: String(size), nr_inodes: String(inodesOf(size)), mode: '0755' }, k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOSUID);
  const stage = new Stage(plan, driver);
  stage.hold(base);
  return { base, owner, stage, count: 0, isPlaceless: true };
}

/** The directory at `path`, or in it. */
export function directoryUpper(plan: PlanBuilder, path: string, owner: UpperSpace['owner'], driver?: Driver): UpperSpace {
  plan.label('use the writable layer', path);
  return { base: openDirectory(plan, cwd, path), owner, stage: new Stage(plan, driver), count: 0, isPlaceless: false };
}

/** The directory at `path` as a layer, with its owners mapped by a user namespace if there is one. */
export function layer(plan: PlanBuilder, stage: Stage, path: string, userns: number | undefined): Slot {
  // It will be attached elsewhere, by another process.
  if (stage.driver.layersAreMounts) return cloneMount(plan, cwd, path, { userns });
  // '/.': a file could be copied, and would not fit on '/'.
  if (userns !== undefined) return stage.hold(cloneMount(plan, cwd, `${path}/.`, { userns }));
  // A name that leads to a mount where it is attached; a copy of it would have to be attached first.
  return mountAbilities().detached ? cloneMount(plan, cwd, path) : openDirectory(plan, cwd, path);
}

/** Of the upper directory of the overlay that is made as the `index`th in a space. */
export const upperName = (index: number): string => `upper${index}`;

export interface OverlayMount extends Omit<Union, 'writable'> {
  /** What its upper directory, and so its root, is like; default: 0755, the space's owner's. */
  readonly root?: RootAttributes | undefined;
}

export interface RootAttributes {
  readonly mode: number;
  /** As they are outside; undefined: of who makes it. */
  readonly owner: UpperSpace['owner'];
}

/** A detached overlay. Its upper and work directories are the next pair of the space. */
export function overlay(plan: PlanBuilder, space: UpperSpace, { root, ...union }: OverlayMount): Slot {
  const [upperPath, workPath] = [upperName(space.count), `work${space.count}`];
  space.count++;
  plan.add('mkdirat', [space.base, upperPath, 0o755], { tolerate: [k.EEXIST] });
  plan.add('mkdirat', [space.base, workPath, 0o755], { tolerate: [k.EEXIST] });
  const { mode, owner } = root ?? { mode: 0o755, owner: space.owner };
  if (owner) plan.add('fchownat', [space.base, upperPath, owner.uid, owner.gid, 0]);
  if (mode !== 0o755) plan.add('fchmodat', [space.base, upperPath, mode]);
  const upper = openDirectory(plan, space.base, upperPath);
  const work = openDirectory(plan, space.base, workPath);
  const place = { from: space.base, path: '', upper: upperPath, work: workPath };
  const mount = space.stage.driver.mount(plan, space.stage, { ...union, writable: { upper, work, place, isKept: false, isPlaceless: space.isPlaceless } });
  plan.add('close', [upper]);
  plan.add('close', [work]);
  return mount;
}
