import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import { cloneMount, createFilesystem, inodesOf, newFilesystem, openDirectory } from './filesystem.js';
import { mountAbilities } from './mount-abilities.js';
import { Stage } from './stage.js';

// OverlayFS, Documentation/filesystems/overlayfs.rst.

/** Where upper and work directories of one root are made: pairs of directories on one new tmpfs, or in a directory. */
export interface UpperSpace {
  readonly base: Slot;
  /** Whose the upper directories are; undefined: who makes them. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined;
  /** Of these directories and of what is overlaid by them: to be cleared when all overlays are made. */
  readonly stage: Stage;
  count: number;
}

export function tmpfsUpper(plan: PlanBuilder, size: number, owner: UpperSpace['owner']): UpperSpace {
  plan.label('make the writable layer', 'tmpfs');
  const base = newFilesystem(plan, 'tmpfs', { size: String(size), nr_inodes: String(inodesOf(size)), mode: '0755' }, k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOSUID);
  const stage = new Stage(plan);
  stage.hold(base);
  return { base, owner, stage, count: 0 };
}

/** The directory at `path`, or in it. */
export function directoryUpper(plan: PlanBuilder, path: string, owner: UpperSpace['owner']): UpperSpace {
  plan.label('use the writable layer', path);
  return { base: openDirectory(plan, cwd, path), owner, stage: new Stage(plan), count: 0 };
}

/** The directory at `path` as a layer, with its owners mapped by a user namespace if there is one. */
export function layer(plan: PlanBuilder, stage: Stage, path: string, userns: number | undefined): Slot {
  if (userns !== undefined) return stage.hold(cloneMount(plan, cwd, path, { userns }));
  // A name that leads to a mount where it is attached; a copy of it would have to be attached first.
  return mountAbilities().detached ? cloneMount(plan, cwd, path) : openDirectory(plan, cwd, path);
}

/** Of the upper directory of the overlay that is made as the `index`th in a space. */
export const upperName = (index: number): string => `upper${index}`;

export interface OverlayMount {
  /** Descriptors of directories, uppermost first. */
  readonly lowers: readonly Slot[];
  /** The caller's superblock is its user namespace's: trusted xattrs are out of reach, so the user.* ones are used. */
  readonly userxattr: boolean;
  /** Nothing of it outlives a crash: the fsync at unmount is saved. */
  readonly volatile: boolean;
  /** What its upper directory, and so its root, is like; default: 0755, the space's owner's. */
  readonly root?: RootAttributes | undefined;
}

export interface RootAttributes {
  readonly mode: number;
  /** As they are outside; undefined: of who makes it. */
  readonly owner: UpperSpace['owner'];
}

/** A detached overlay. Its upper and work directories are the next pair of the space. */
export function overlay(plan: PlanBuilder, space: UpperSpace, request: OverlayMount): Slot {
  const [upperPath, workPath] = [upperName(space.count), `work${space.count}`];
  space.count++;
  plan.add('mkdirat', [space.base, upperPath, 0o755], { tolerate: [k.EEXIST] });
  plan.add('mkdirat', [space.base, workPath, 0o755], { tolerate: [k.EEXIST] });
  const { mode, owner } = request.root ?? { mode: 0o755, owner: space.owner };
  if (owner) plan.add('fchownat', [space.base, upperPath, owner.uid, owner.gid, 0]);
  if (mode !== 0o755) plan.add('fchmodat', [space.base, upperPath, mode]);
  const upper = openDirectory(plan, space.base, upperPath);
  const work = openDirectory(plan, space.base, workPath);
  const mount = overlayOf(plan, space.stage, request, upper, work);
  plan.add('close', [upper]);
  plan.add('close', [work]);
  return mount;
}

export function overlayOf(
  plan: PlanBuilder,
  stage: Stage,
  { lowers, userxattr, volatile }: OverlayMount,
  upper: Slot | undefined,
  work: Slot | undefined,
): Slot {
  const context = plan.open('overlay context', 'fsopen', ['overlay', k.FSOPEN_CLOEXEC]);
  const create = (): Slot => {
    if (upper && work && volatile) plan.add('fsconfig', [context, k.FSCONFIG_SET_FLAG, 'volatile', null, 0]);
    if (userxattr) plan.add('fsconfig', [context, k.FSCONFIG_SET_FLAG, 'userxattr', null, 0]);
    // Else rename(2) of a directory that the lower layer has is EXDEV, which many programs take for an error.
    else plan.add('fsconfig', [context, k.FSCONFIG_SET_STRING, 'redirect_dir', 'on', 0]);
    // Device nodes in a layer are data; those that may be opened are in /dev.
    return createFilesystem(plan, context, 'overlay', k.MOUNT_ATTR_NODEV);
  };
  const directories: readonly (readonly [string, Slot])[] =
    upper && work
      ? [
          ['upperdir', upper],
          ['workdir', work],
        ]
      : [];
  if (!mountAbilities().detached) return stage.names.overlay(context, lowers, directories, create);
  // Mount options by descriptor: no path is looked up again, and none has to be escaped. Since 6.13 (ovl_parse_layer).
  for (const lower of lowers) plan.add('fsconfig_fd', [context, k.FSCONFIG_SET_FD, 'lowerdir+', null, lower]);
  for (const [key, directory] of directories) plan.add('fsconfig_fd', [context, k.FSCONFIG_SET_FD, key, null, directory]);
  return create();
}
