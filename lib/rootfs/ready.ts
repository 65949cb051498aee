import { caller } from '../host/caller.js';
import { native } from '../native.js';
import { bringUpLoopback } from '../network/loopback.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd, type Slot } from '../plan/steps.js';
import { type Ids, idsFor, rootOutside } from '../security/id-map.js';
import { type HostRoot, privilegedHostRoot, privilegedParts } from './host-root.js';
import { newSysfs } from './kernel-filesystems.js';
import { mountAbilities } from './mount-abilities.js';
import { tmpfsUpper, type UpperSpace } from './overlay.js';
import type { RootMount } from './root-mount.js';

// What costs most and needs nothing of a certain spawn is made for the next one while the present one runs: a default root with a
// lease of ids, and a network namespace with its loopback device up and its sysfs. There is one set of it; only a privileged
// caller can make it outside of the sandbox.

export interface Ready {
  readonly of: HostRoot;
  readonly ids: Ids;
  /** Detached mounts. Descriptors are the receiver's. */
  readonly mounts: readonly { readonly target: string; readonly fd: number }[];
  readonly net: number;
  readonly sysfs: number;
}

export const descriptorsOf = ({ mounts, net, sysfs }: Ready): number[] => [...mounts.map(({ fd }) => fd), net, sysfs];

export const defaultUpperSize: number = 512 * 2 ** 20;

let ready: Ready | undefined;
let making = false;

/** Sandboxes that are starting or running. While there are some, making a set would take the processor and the kernel's locks from them. */
let busy = 0;
let idle: NodeJS.Timeout | undefined;
/** Milliseconds that a set is kept for: for longer it would keep a file system busy that the host wants to unmount. */
const lifetime = 2000;
let expiry: NodeJS.Timeout | undefined;
/** Milliseconds without a sandbox, after which the next one is prepared for: a batch that goes on is not disturbed. */
const pause = 3;

/** A set that fits, if there is one. Call `leave` of what `enter` returns when the sandbox has ended. */
export function takeReady(root: HostRoot): Ready | undefined {
  const taken = ready;
  ready = undefined;
  clearTimeout(expiry);
  if (taken && taken.of !== root) {
    discard(taken);
    return undefined;
  }
  return taken;
}

/** One more sandbox; call the result once, at its end. */
export function enter(root: HostRoot): () => void {
  busy++;
  clearTimeout(idle);
  return () => {
    if (--busy > 0 || !caller().mayMapRanges) return;
    idle = setTimeout(() => void make(root), pause).unref();
  };
}

function dropReady(): void {
  if (ready) discard(ready);
  ready = undefined;
}

function discard(set: Ready): void {
  for (const fd of descriptorsOf(set)) native().close(fd);
  set.ids.release();
}

async function make(root: HostRoot): Promise<void> {
  // Before 6.15 a root that is made ahead would have to stay attached, and be left behind if we are killed.
  if (making || ready || !mountAbilities().detached) return;
  making = true;
  try {
    const ids = await idsFor('auto', caller(), { uid: 0, gid: 0 });
    try {
      const plan = new PlanBuilder().in('parent');
      const mounts = defaultRoot(plan, root, ids, ids.userns);
      for (const { mount } of mounts) plan.keep(mount);
      const { net, sysfs } = readyNetwork(plan);
      const fdOf = await runPlan(plan);
      ready = { of: root, ids, mounts: mounts.map(({ target, mount }) => ({ target, fd: fdOf(mount) })), net: fdOf(net), sysfs: fdOf(sysfs) };
      expiry = setTimeout(dropReady, lifetime).unref();
    } catch {
      // The next spawn makes its own, and tells what is wrong.
      ids.release();
    }
  } finally {
    making = false;
  }
}

function readyNetwork(plan: PlanBuilder): { net: Slot; sysfs: Slot } {
  plan.in('join');
  plan.joinFlags = k.CLONE_NEWNET;
  bringUpLoopback(plan);
  plan.label('keep the network namespace');
  const net = plan.open('ready network namespace', 'openat', [cwd, '/proc/self/ns/net', k.O_RDONLY | k.O_CLOEXEC, 0]);
  const sysfs = newSysfs(plan);
  plan.keep(net);
  plan.keep(sysfs);
  return { net, sysfs };
}

/** Steps after `beginMaking`. `userns` is a descriptor that stays open until they have run. */
export function defaultRoot(plan: PlanBuilder, root: HostRoot, ids: Ids | undefined, userns: number | undefined): RootMount[] {
  const owner: UpperSpace['owner'] = ids && rootOutside(ids.map);
  const kit = root.kit && plan.slot('kit', native().duplicate(root.kit.fd, 64));
  const space = tmpfsUpper(plan, defaultUpperSize, owner);
  const mounts = privilegedHostRoot(plan, root, kit, space, userns, privilegedParts(root, ids?.map ?? 'host'));
  space.stage.clear();
  return mounts;
}
