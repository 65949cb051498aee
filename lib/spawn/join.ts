// Entering namespaces that exist: the steps of a joiner.

import { IsolationError } from '../errors.js';
import { caller } from '../host/caller.js';
import { ownUserNamespace } from '../namespace/create.js';
import { namespaceFlags, namespaceTypes } from '../namespace/flags.js';
import { Namespace } from '../namespace/namespace.js';
import { native } from '../native.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import type { Slot } from '../plan/steps.js';
import { newProc } from '../rootfs/kernel-filesystems.js';
import type { Context } from './compile.js';
import type { Settings } from './settings.js';

export interface Owner {
  readonly user: number | undefined;
  readonly mount: number | undefined;
  /** The namespaces are those of a root of ours: the ids are new, as far as the caller can tell. */
  readonly own: boolean;
  /** A descriptor opened here, to be given to the plan. */
  readonly opened: boolean;
}

/**
 * Whose user namespace the child enters instead of getting a new one: the one that was asked for, the one that owns a borrowed
 * root's mounts, or, for an ordinary user, the one that owns a namespace to be joined, as nobody else may join it.
 */
export function ownerOf(settings: Settings, context: Context): Owner {
  const owners = [context.rootUse, ...context.overlayUses].flatMap((use) => (use?.owner ? [use.owner] : []));
  const [first] = owners;
  if (owners.some((other) => other !== first)) {
    throw new IsolationError('ERR_CLOISTER_ROOTFS', 'these OverlayRootfs have different owners, and a process can only be in one user namespace', {
      step: 'enter the user namespace of a root',
      hint: 'Give them the same idMap.',
    });
  }
  const { user } = settings.namespaces;
  if (user instanceof Namespace && first && user.id !== ownUserNamespace()) {
    throw new IsolationError(
      'ERR_CLOISTER_ROOTFS',
      "an ordinary user's OverlayRootfs can be used in its own user namespace only, and another one was asked for",
      {
        step: 'enter the user namespace of a root',
        hint: 'Leave namespaces.user out; namespaces that are joined besides need that one as their owner.',
      },
    );
  }
  if (user instanceof Namespace && user.id !== ownUserNamespace()) return { user: user.fd, mount: undefined, own: false, opened: false };
  if (first) return { user: first.user, mount: first.mount, own: true, opened: false };
  if (user === 'new' && !caller().privileged) {
    for (const type of namespaceTypes) {
      const choice = settings.namespaces[type];
      if (!(choice instanceof Namespace)) continue;
      const fd = native().namespaceOwner(choice.fd);
      if (fd >= 0) return { user: fd, mount: undefined, own: false, opened: true };
    }
  }
  return { user: undefined, mount: undefined, own: false, opened: false };
}

/** With `mountsProc`, /proc of a pid namespace that is joined: who is in another user namespace than its owner could not mount it. */
export function joinNamespaces(
  plan: PlanBuilder,
  settings: Settings,
  owner: Owner,
  borrow: (name: string, fd: number) => Slot,
  mountsProc: boolean,
): Slot | undefined {
  const joined = namespaceTypes.flatMap((type) => {
    const choice = settings.namespaces[type];
    return choice instanceof Namespace && type !== 'user' ? [{ type, fd: choice.fd }] : [];
  });
  if (owner.user === undefined && joined.length === 0) return undefined;
  plan.joinFlags = Math.max(plan.joinFlags, 0);
  // Whoever is in that user or pid namespace already could open our memory, if the joiner shared it with Node: proc_pid_mem(5). It
  // has a copy instead, which nobody may look into; to make Node itself unreadable would fail other spawns meanwhile.
  if (owner.user !== undefined || joined.some(({ type }) => type === 'pid')) {
    plan.ownMemory = true;
    plan.label('become unreadable').add('prctl', [k.PR_SET_DUMPABLE, 0, 0, 0, 0]);
  }
  const joinUser = (): void => {
    if (owner.user === undefined) return;
    const slot = owner.opened ? plan.slot('user namespace', owner.user) : borrow('user namespace', owner.user);
    plan.label('join the user namespace').add('setns', [slot, k.CLONE_NEWUSER]);
  };
  // An ordinary user has rights over the others only inside; root has them here, also over those that this user namespace does not own.
  const userFirst = !caller().privileged || owner.mount !== undefined;
  if (userFirst) joinUser();
  if (owner.mount !== undefined) plan.label('join the mount namespace of the root').add('setns', [borrow('mount namespace', owner.mount), k.CLONE_NEWNS]);
  let proc: Slot | undefined;
  // The mount namespace last: it changes what paths mean.
  for (const { type, fd } of joined.sort((a, b) => Number(a.type === 'mount') - Number(b.type === 'mount'))) {
    const slot = borrow(`${type} namespace`, fd);
    plan.label(`join the ${type} namespace`).add('setns', [slot, namespaceFlags[type]]);
    // timens_install refuses whoever shares memory.
    if (type === 'time') plan.ownMemory = true;
    if (type === 'pid' && mountsProc) proc = newProc(plan.label('mount /proc', '/proc'), slot);
  }
  if (!userFirst) joinUser();
  return proc;
}
