import { caller } from '../host/caller.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import { runPlan } from '../plan/run.js';
import { type Ids, idsFor, outside } from '../security/id-map.js';
import { type HostRoot, privilegedHostRoot } from './host-root.js';
import { tmpfsUpper, type UpperSpace } from './overlay.js';
import type { RootMount } from './root-mount.js';

// The default root of the next spawn is made while the present one runs: a third of what a spawn does before its clone needs
// nothing of that spawn. It is one root, with one lease of ids; only a privileged caller can make it outside of the sandbox.

export interface ReadyRoot {
  readonly of: HostRoot;
  readonly ids: Ids;
  /** Detached mounts, which are the receiver's. */
  readonly mounts: readonly { readonly target: string; readonly fd: number }[];
}

export const defaultUpperSize: number = 512 * 2 ** 20;

let ready: ReadyRoot | undefined;
let making = false;

/** One that fits, if there is one; another is made once the present turn of the loop is over. */
export function takeReadyRoot(root: HostRoot): ReadyRoot | undefined {
  if (!caller().mayMapRanges) return undefined;
  const taken = ready;
  ready = undefined;
  // After the launch that it is taken for, which would have to wait for it.
  setImmediate(() => void make(root));
  if (taken?.of === root) return taken;
  if (taken) discard(taken);
  return undefined;
}

function discard({ ids, mounts }: ReadyRoot): void {
  for (const { fd } of mounts) native().close(fd);
  ids.release();
}

async function make(root: HostRoot): Promise<void> {
  if (making || ready) return;
  making = true;
  try {
    const ids = await idsFor('auto', caller(), { uid: 0, gid: 0 });
    try {
      const plan = new PlanBuilder().in('parent');
      const mounts = defaultRoot(plan, root, ids, ids.userns);
      for (const { mount } of mounts) plan.keep(mount);
      const fdOf = await runPlan(plan);
      ready = { of: root, ids, mounts: mounts.map(({ target, mount }) => ({ target, fd: fdOf(mount) })) };
    } catch {
      // The next spawn makes its own, and tells what is wrong.
      ids.release();
    }
  } finally {
    making = false;
  }
}

/** Steps of the parent. `userns` is a descriptor that stays open until they have run. */
export function defaultRoot(plan: PlanBuilder, root: HostRoot, ids: Ids | undefined, userns: number | undefined): RootMount[] {
  const owner: UpperSpace['owner'] = ids && { uid: outside(ids.map.uids, 0) ?? 0, gid: outside(ids.map.gids, 0) ?? 0 };
  const kit = plan.slot('kit', native().duplicate(root.kit?.fd ?? -1, 64));
  return privilegedHostRoot(plan, root, kit, tmpfsUpper(plan, defaultUpperSize, owner), userns);
}
