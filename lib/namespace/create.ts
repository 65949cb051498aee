import { statSync } from 'node:fs';
import { optionError } from '../errors.js';
import { caller } from '../host/caller.js';
import { checked, native } from '../native.js';
import { bringUpLoopback } from '../network/loopback.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd } from '../plan/steps.js';
import { awaitIds } from '../security/await-ids.js';
import { checkIdMap, type Ids, idsFor, idTexts } from '../security/id-map.js';
import { writeOwnIdMap } from '../security/own-id-map.js';
import * as check from '../spawn/validate.js';
import { namespaceFiles, namespaceFlags } from './flags.js';
import { holdByInit } from './holder.js';
import type { NamespaceOptions, NamespaceType } from './types.js';

export interface Created {
  readonly fd: number;
  readonly release: () => void;
}

/** A new namespace of a kind, held by a descriptor alone where the kernel allows that, else by an init inside. */
export async function create(type: NamespaceType, options: NamespaceOptions): Promise<Created> {
  check.record(options, 'options');
  check.onlyKeys(options, '', ['owner', 'idMap', 'timeOffsets']);
  const { timeOffsets } = options;
  let { owner } = options;
  if (owner !== undefined && owner.type !== 'user') throw optionError('owner', 'a UserNamespace', owner);
  if (owner !== undefined && type === 'user') throw optionError('owner', 'nothing for a user namespace: nested ones are made by a process inside', owner);
  if (timeOffsets !== undefined && type !== 'time') throw optionError('timeOffsets', "nothing unless type is 'time'", timeOffsets);
  // setns(2): one's own user namespace cannot be entered again, and need not be.
  if (owner?.id === ownUserNamespace()) owner = undefined;
  const newUser = type === 'user' || (owner === undefined && !caller().privileged);
  if (options.idMap !== undefined && !newUser) throw optionError('idMap', 'nothing: the ids are those of the owner', options.idMap);
  const ids = newUser ? await idsFor(options.idMap === undefined ? 'auto' : checkIdMap(options.idMap, 'idMap'), caller(), { uid: 0, gid: 0 }) : undefined;
  const release = ids?.release ?? (() => {});
  try {
    if (type === 'pid' || type === 'time') {
      const held = await holdByInit(type, ids, owner?.fd, timeOffsets);
      const fd = checked(native().openFile(`/proc/${held.pid}/ns/${namespaceFiles[type]}`), 'open', 'hold a namespace');
      return {
        fd,
        release: () => {
          held.end();
          release();
        },
      };
    }
    return { fd: await makeAndHold(type, ids, owner?.fd), release };
  } catch (error) {
    release();
    throw error;
  }
}

/** The inode number of the user namespace that we are in. */
export const ownUserNamespace = (): bigint => statSync('/proc/self/ns/user', { bigint: true }).ino;

async function makeAndHold(type: NamespaceType, ids: Ids | undefined, owner: number | undefined): Promise<number> {
  const plan = new PlanBuilder().in('join');
  plan.joinFlags = (ids ? k.CLONE_NEWUSER : 0) | (owner === undefined ? namespaceFlags[type] : 0);
  if (ids) mapIds(plan, ids);
  if (owner !== undefined) {
    plan.label('join the owner').add('setns', [plan.slot('owner', native().duplicate(owner, 0)), k.CLONE_NEWUSER]);
    plan.label(`make a ${type} namespace`).add('unshare', [namespaceFlags[type]]);
  }
  if (type === 'net') bringUpLoopback(plan);
  plan.label('keep the namespace', `/proc/self/ns/${namespaceFiles[type]}`);
  const slot = plan.open(type, 'openat', [cwd, `/proc/self/ns/${namespaceFiles[type]}`, k.O_RDONLY | k.O_CLOEXEC, 0]);
  plan.keep(slot);
  return (await runPlan(plan))(slot);
}

export function mapIds(plan: PlanBuilder, ids: Ids): void {
  if (ids.writer === 'child') writeOwnIdMap(plan, ids.map);
  else {
    plan.idMap = idTexts(ids);
    awaitIds(plan);
  }
}
