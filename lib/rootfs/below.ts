import { caller } from '../host/caller.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { newFilesystem } from './filesystem.js';
import { type LowerContext, openLower } from './lowers.js';
import type { Made } from './make-root.js';
import { enterOwner } from './ordinary-owner.js';
import { overlayOf } from './overlay.js';
import type { RootMount } from './root-mount.js';
import { attach, openTarget } from './targets.js';

/** A descriptor of the root as it would be without its writable layers: a detached mount of its lower ones, put together by the kernel. */
export async function lookBelow(made: Made): Promise<number> {
  const plan = new PlanBuilder();
  const { owner } = made;
  if (owner) {
    enterOwner(plan, owner);
    plan.label('become root inside').add('setresgid', [0, 0, 0]);
    plan.add('setresuid', [0, 0, 0]);
  } else plan.in('parent');
  const userns = made.ids.userns === undefined ? undefined : native().duplicate(made.ids.userns, 0);
  if (userns !== undefined) plan.slot('user namespace', userns);
  const context: LowerContext = {
    privileged: caller().privileged,
    kit: made.kit === undefined ? undefined : plan.slot('kit', native().duplicate(made.kit, 64)),
    base: plan.slot('base', native().duplicate(made.base, 64)),
    userns,
    held: new Map(),
  };
  let root: RootMount | undefined;
  for (const { target, lowers } of made.parts) {
    plan.label('look below the writable layer', target);
    const opened = lowers.map((lower) => openLower(plan, lower, context));
    // An overlay without a writable layer has at least two others (ovl_fill_super).
    if (opened.length === 1) opened.push(newFilesystem(plan, 'tmpfs', {}, k.MOUNT_ATTR_RDONLY));
    const mount = overlayOf(plan, { lowers: opened, userxattr: !context.privileged, volatile: false }, undefined, undefined);
    for (const used of opened) plan.release(used);
    if (root) {
      attach(plan, mount, openTarget(plan, root.mount, target));
      plan.release(mount);
    } else root = { target, mount };
  }
  if (!root) throw new RangeError('a root has a part');
  plan.keep(root.mount);
  return (await runPlan(plan))(root.mount);
}
