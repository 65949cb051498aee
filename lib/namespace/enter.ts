import { fstatSync, statSync } from 'node:fs';
import { caller } from '../host/caller.js';
import { native } from '../native.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { namespaceFlags } from './flags.js';
import type { NamespaceType } from './types.js';

/**
 * Steps of a joiner that enters a namespace; an ordinary user first enters the user namespace that owns it. setns(2).
 *
 * Whoever has CAP_SYS_PTRACE in that user namespace, and a name for the joiner, could open its memory, and with that ours if it is
 * shared (cap_ptrace_access_check). So it has a copy, and nobody may look into that.
 */
export function enter(plan: PlanBuilder, namespace: { readonly type: NamespaceType; readonly fd: number }): void {
  plan.in('join');
  plan.joinFlags = 0;
  if (namespace.type !== 'user' && !caller().privileged) {
    const owner = native().namespaceOwner(namespace.fd);
    // Our own cannot be entered again, and is not where a right over our own namespaces would come from.
    if (owner >= 0 && fstatSync(owner, { bigint: true }).ino === statSync('/proc/self/ns/user', { bigint: true }).ino) native().close(owner);
    else if (owner >= 0) {
      becomeUnreadable(plan);
      plan.label('join the user namespace').add('setns', [plan.slot('owner', owner), k.CLONE_NEWUSER]);
    }
  }
  if (namespace.type === 'user') becomeUnreadable(plan);
  plan.label(`join the ${namespace.type} namespace`);
  plan.add('setns', [plan.slot(namespace.type, native().duplicate(namespace.fd, 0)), namespaceFlags[namespace.type]]);
}

function becomeUnreadable(plan: PlanBuilder): void {
  plan.ownMemory = true;
  plan.label('become unreadable').add('prctl', [k.PR_SET_DUMPABLE, 0, 0, 0, 0]);
}
