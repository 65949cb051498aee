import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import type { Driver } from './drivers/driver.js';
import type { ServerOrder } from './drivers/fuse-overlayfs.js';
import { overlay } from './drivers/overlay.js';
import { newFilesystem } from './filesystem.js';
import { LayerNames } from './layer-names.js';
import { mountAbilities } from './mount-abilities.js';
import { makePrivate, type RootMount } from './root-mount.js';

// Before Linux 6.15 only a mount that is attached in the caller's mount namespace can be a layer, or be copied. There, mounts are
// put together in a namespace of their own, and what is to be copied for each spawn stays in one.

/**
 * The section in which a privileged caller puts mounts together: before the clone, or, where they have to be attached, in a
 * joiner with a mount namespace of its own, which the child then begins with a copy of.
 */
export function beginMaking(plan: PlanBuilder): void {
  if (mountAbilities().detached) {
    plan.in('parent');
    return;
  }
  plan.in('join');
  plan.joinFlags = Math.max(plan.joinFlags, 0) | k.CLONE_NEWNS;
  makePrivate(plan);
}

/**
 * Mounts that must be attached while something is made of them: they are stacked on '/', where whoever's root directory is below
 * them does not see them. Nothing on kernels that need no such thing.
 */
export class Stage {
  /** Of the layers of the overlays that are made meanwhile. */
  readonly names: LayerNames;
  /** What makes them. */
  readonly driver: Driver;
  /** Programs to be started for them when the plan has run. */
  readonly servers: ServerOrder[] = [];
  readonly #plan: PlanBuilder;
  #depth = 0;

  constructor(plan: PlanBuilder, driver: Driver = overlay) {
    this.#plan = plan;
    this.driver = driver;
    this.names = new LayerNames(plan);
  }

  /** Of a layer that was opened for a mount, when that is made. */
  release(lower: Slot): void {
    if (!this.driver.layersAreMounts) this.#plan.release(lower);
  }

  hold(mount: Slot): Slot {
    if (mountAbilities().detached) return mount;
    this.#plan.add('move_mount', [mount, '', cwd, '/', k.MOVE_MOUNT_F_EMPTY_PATH]);
    this.#depth++;
    return mount;
  }

  /** umount2(2) takes the uppermost away. */
  clear(): void {
    for (; this.#depth > 0; this.#depth--) this.#plan.add('umount2', ['/', k.MNT_DETACH]);
  }
}

/**
 * Where mounts are to be kept attached, for whoever is in a mount namespace of its own: to be made before anything is attached, as
 * nothing can be moved to a place below itself.
 */
export function makeStore(plan: PlanBuilder): Slot {
  plan.label('keep the mounts of the root');
  const store = newFilesystem(plan, 'tmpfs', { mode: '0700', size: '65536' }, k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV);
  plan.add('move_mount', [store, '', cwd, '/', k.MOVE_MOUNT_F_EMPTY_PATH]);
  return store;
}

/** The last steps: leaves these mounts in the namespace and nothing else, so that it keeps no file system of the host busy. A slot with the namespace. */
export function storeMounts(plan: PlanBuilder, store: Slot, mounts: readonly RootMount[]): Slot {
  plan.label('keep the mounts of the root');
  for (const [index, { mount, isFile }] of mounts.entries()) {
    if (isFile) plan.add('mknodat', [store, String(index), k.S_IFREG | 0o600, 0]);
    else plan.add('mkdirat', [store, String(index), 0o700]);
    plan.add('move_mount', [mount, '', store, String(index), k.MOVE_MOUNT_F_EMPTY_PATH]);
  }
  const namespace = plan.open('mount namespace', 'openat', [cwd, '/proc/self/ns/mnt', k.O_RDONLY | k.O_CLOEXEC, 0]);
  plan.add('fchdir', [store]);
  plan.add('pivot_root', ['.', '.']);
  plan.add('umount2', ['.', k.MNT_DETACH]);
  return namespace;
}

/** What is kept of a root: descriptors of mounts, and of the namespace that they are attached in, if they have to be. */
export interface StoredMounts {
  readonly mounts: readonly { readonly target: string; readonly fd: number; readonly isFile?: boolean | undefined }[];
  readonly store: number | undefined;
}

/** Detached copies, made where the mounts are. */
export function copyStored(plan: PlanBuilder, { mounts, store }: StoredMounts, borrow: (name: string, fd: number) => Slot): RootMount[] {
  let home: Slot | undefined;
  if (store !== undefined) {
    plan.label('enter the mount namespace of the root');
    home = plan.open('own mount namespace', 'openat', [cwd, '/proc/self/ns/mnt', k.O_RDONLY | k.O_CLOEXEC, 0]);
    plan.add('setns', [borrow('mount namespace of the root', store), k.CLONE_NEWNS]);
  }
  const flags = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_RECURSIVE | k.AT_EMPTY_PATH;
  const copies = mounts.map(({ target, fd, isFile }) => {
    plan.label(target === '/' ? 'copy the root' : 'copy a part of the root', target);
    return { target, isFile, mount: plan.open(`copy of ${target}`, 'open_tree', [borrow(`root ${target}`, fd), '', flags]) };
  });
  if (home) {
    plan.label('leave the mount namespace of the root').add('setns', [home, k.CLONE_NEWNS]);
    plan.release(home);
  }
  return copies;
}
