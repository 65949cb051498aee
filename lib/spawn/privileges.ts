// Who the child is: signals and ids at its beginning, what it may do at its end.

import { caller } from '../host/caller.js';
import type { IdMap } from '../namespace/types.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import * as structs from '../plan/structs.js';
import { awaitIds } from '../security/await-ids.js';
import { type Ids, outside } from '../security/id-map.js';
import { writeOwnIdMap } from '../security/own-id-map.js';
import type { UserSetting } from './privilege-settings.js';
import type { Settings } from './settings.js';

const sysAdmin = 1n << 21n;

/** CLONE_CLEAR_SIGHAND leaves ignored signals ignored; a program expects none to be (signal(7), execve(2)). */
export function resetSignals(plan: PlanBuilder, ignored: readonly number[]): void {
  plan.label('reset ignored signals');
  for (const signal of ignored) plan.add('rt_sigaction', [signal, structs.defaultSignalAction, 0, 8]);
}

/** Again after each change of credentials, which clears it: prctl(2), PR_SET_PDEATHSIG. */
export function dieWithParent(plan: PlanBuilder, { detached }: Settings): void {
  if (detached) return;
  plan.label('die with the parent').add('prctl', [k.PR_SET_PDEATHSIG, k.SIGKILL, 0, 0, 0]);
  plan.add('expect_alive', []);
}

export function becomeRoot(plan: PlanBuilder, ids: Ids, { detached }: Settings): void {
  if (ids.writer === 'child') {
    writeOwnIdMap(plan, ids.map);
    const root = { uid: ids.map.uids[0]?.inside ?? 0, gid: ids.map.gids[0]?.inside ?? 0 };
    plan.label('become root inside').add('setresgid', [root.gid, root.gid, root.gid]);
    plan.add('setresuid', [root.uid, root.uid, root.uid]);
    return;
  }
  if (detached) {
    awaitIds(plan);
    plan.label('outlive the parent').add('prctl', [k.PR_SET_PDEATHSIG, 0, 0, 0, 0]);
  } else plan.label('wait for the id maps').add('await_ids', []);
  plan.label('become root inside').add('setgroups', [0, null]);
  const root = firstIds(ids.map);
  plan.add('setresgid', [root.gid, root.gid, root.gid]);
  plan.add('setresuid', [root.uid, root.uid, root.uid]);
}

/** 0, or the first that is mapped: files that are made while the root is put together need an owner with a name. */
function firstIds(map: IdMap): { uid: number; gid: number } {
  const first = (ranges: IdMap['uids']): number => (outside(ranges, 0) === undefined ? (ranges[0]?.inside ?? 0) : 0);
  return { uid: first(map.uids), gid: first(map.gids) };
}

export function enterIds(plan: PlanBuilder): void {
  // EINVAL: that namespace has no root. EPERM: it was made by an ordinary user, and setgroups given up.
  plan.label('become root inside').add('setgroups', [0, null], { tolerate: [k.EPERM, k.EINVAL] });
  plan.add('setresgid', [0, 0, 0], { tolerate: [k.EINVAL] });
  plan.add('setresuid', [0, 0, 0], { tolerate: [k.EINVAL] });
}

/** `filter`: installs the filter of system calls, where it has to be before privileges are gone. `confine`: changes the AppArmor profile. */
export function dropPrivileges(
  plan: PlanBuilder,
  settings: Settings,
  user: UserSetting,
  userNamespace: 'new' | 'host' | 'joined',
  filter: (() => void) | undefined,
  confine: (() => void) | undefined,
): void {
  const sets = settings.capabilities;
  if (sets === 'caller') return;
  plan.label('drop capabilities');
  // Inside a user namespace every process begins with all of them; a caller without a new one has those it has.
  plan.add('drop_bounding', [Number(sets.bounding), caller().lastCapability]);
  if (user.uid !== 0) plan.add('prctl', [k.PR_SET_KEEPCAPS, 1, 0, 0, 0]);
  plan.label('become the user', `${user.uid}:${user.gid}`);
  // In a new user namespace it is 0:0 already, without groups.
  const hostUser = userNamespace === 'host';
  const isNew = userNamespace === 'new';
  if (hostUser || user.groups.length > 0) plan.add('setgroups', [user.groups.length, user.groups.length === 0 ? null : structs.groupList(user.groups)]);
  if (!isNew || user.gid !== 0) plan.add('setresgid', [user.gid, user.gid, user.gid]);
  if (!isNew || user.uid !== 0) plan.add('setresuid', [user.uid, user.uid, user.uid]);
  const capset = (effective: bigint, permitted: bigint): void => {
    plan.label('drop capabilities').add('capset', [structs.capabilityHeader(), structs.capabilityData(effective, permitted, sets.inheritable)]);
  };
  if (filter && !settings.noNewPrivileges) {
    // Without no_new_privs only CAP_SYS_ADMIN may filter calls, seccomp(2); so it goes after that.
    capset(sets.effective | sysAdmin, sets.permitted | sysAdmin);
    filter();
  }
  capset(sets.effective, sets.permitted);
  // A new user namespace begins without ambient capabilities (create_user_ns).
  if (hostUser) plan.add('prctl', [k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0]);
  for (let number = 0; number <= caller().lastCapability; number++) {
    if ((sets.ambient >> BigInt(number)) & 1n) plan.add('prctl', [k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_RAISE, number, 0, 0]);
  }
  confine?.();
  if (settings.noNewPrivileges) plan.label('set no_new_privs').add('prctl', [k.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]);
  if (!isNew || user.uid !== 0 || user.gid !== 0) dieWithParent(plan, settings);
}
