import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import { mountAttr } from '../plan/structs.js';
import { attach, openTarget } from './targets.js';

/** A detached mount that becomes part of the root; the first one is '/'. */
export interface RootMount {
  readonly target: string;
  readonly mount: Slot;
  readonly isFile?: boolean | undefined;
  /** It is mounted over '/' already, as something had to be mounted in it. */
  readonly isAttached?: boolean | undefined;
}

/** Nothing that is mounted from now on is seen elsewhere, nor what is mounted elsewhere seen here. */
export function makePrivate(plan: PlanBuilder, propagation = k.MS_PRIVATE): void {
  plan.label('cut off mount propagation', '/').add('mount_setattr', [cwd, '/', k.AT_RECURSIVE, mountAttr({ propagation })]);
}

/**
 * Mounts the root over the old one, where it needs no directory of the host, and enters it. Absolute paths still lead into the
 * old root until pivot().
 */
export function attachRoot(plan: PlanBuilder, mounts: readonly RootMount[]): Slot {
  const [root, ...others] = mounts;
  if (!root) throw new RangeError('a root needs a mount');
  plan.label('mount the root', '/');
  if (!root.isAttached) plan.add('move_mount', [root.mount, '', cwd, '/', k.MOVE_MOUNT_F_EMPTY_PATH]);
  plan.add('fchdir', [root.mount]);
  for (const { target, mount } of others) {
    plan.label('mount part of the root', target);
    attach(plan, mount, openTarget(plan, root.mount, target));
    plan.release(mount);
  }
  return root.mount;
}

/** pivot_root(2), "pivot_root(".", ".")": the new root is stacked on the old one, which is then taken away. */
export function pivot(plan: PlanBuilder): void {
  plan.label('leave the old root', '/').add('pivot_root', ['.', '.']);
  plan.add('umount2', ['.', k.MNT_DETACH]);
}

export function makeReadonly(plan: PlanBuilder, root: Slot): void {
  plan.label('make the root read-only', '/');
  plan.add('mount_setattr', [root, '', k.AT_EMPTY_PATH, mountAttr({ set: k.MOUNT_ATTR_RDONLY })]);
}
