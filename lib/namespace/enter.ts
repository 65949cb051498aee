import { fstatSync, statSync } from 'node:fs';
import { caller } from '../host/caller.js';
import { native } from '../native.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { namespaceFlags } from './flags.js';
import type { NamespaceType } from './types.js';

/** Steps of a joiner that enters a namespace; an ordinary user first enters the user namespace that owns it. setns(2) */
export function enter(plan: PlanBuilder, namespace: { readonly type: NamespaceType; readonly fd: number }): void {
  plan.in('join');
  plan.joinFlags = 0;
  if (namespace.type !== 'user' && !caller().privileged) {
    const owner = native().namespaceOwner(namespace.fd);
    // Our own cannot be entered again, and is not where a right over our own namespaces would come from.
    if (owner >= 0 && fstatSync(owner, { bigint: true }).ino === statSync('/proc/self/ns/user', { bigint: true }).ino) native().close(owner);
    else if (owner >= 0) plan.label('join the user namespace').add('setns', [plan.slot('owner', owner), k.CLONE_NEWUSER]);
  }
  plan.label(`join the ${namespace.type} namespace`);
  plan.add('setns', [plan.slot(namespace.type, native().duplicate(namespace.fd, 0)), namespaceFlags[namespace.type]]);
}
