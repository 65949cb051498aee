import type { NativeFailure } from '../../types/native.js';
import { IsolationError } from '../errors.js';
import { checked, native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { explainFailure } from '../plan/failure.js';
import { capabilityData, capabilityHeader } from '../plan/structs.js';
import type { Ids } from '../security/id-map.js';
import { writeTimeOffsets } from '../security/time-offsets.js';
import { mapIds } from './create.js';
import { namespaceFlags } from './flags.js';

/**
 * A pid namespace without an init cannot be entered by more than one process, and a time namespace exists from exec on: so a tiny
 * init of ours is kept in them.
 */
export function holdByInit(
  type: 'pid' | 'time',
  ids: Ids | undefined,
  owner: number | undefined,
  timeOffsets: { monotonic?: number; boottime?: number } | undefined,
): Promise<{ pid: number; end: () => void }> {
  const plan = new PlanBuilder();
  const init = plan.slot('init', checked(native().initProgram(), 'memfd_create', 'make init'));
  plan.cloneFlags = namespaceFlags[type] | (ids ? k.CLONE_NEWUSER : 0);
  if (owner !== undefined) {
    plan.in('join');
    plan.joinFlags = 0;
    plan.label('join the owner').add('setns', [plan.slot('owner', native().duplicate(owner, 0)), k.CLONE_NEWUSER]);
  }
  plan.in('child');
  if (ids) mapIds(plan, ids);
  if (type === 'time') writeTimeOffsets(plan, { monotonic: timeOffsets?.monotonic ?? 0, boottime: timeOffsets?.boottime ?? 0 });
  plan.label('die with the parent').add('prctl', [k.PR_SET_PDEATHSIG, k.SIGKILL, 0, 0, 0]);
  plan.add('expect_alive', []);
  plan.label('drop capabilities').add('capset', [capabilityHeader(), capabilityData(0n, 0n, 0n)]);
  plan.add('prctl', [k.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]);
  plan.label('close all descriptors').add('close_range', [0, 0xffffffff, k.CLOSE_RANGE_CLOEXEC]);
  plan.label('execute init').add('execveat', [init, '', ['cloister-init'], [], k.AT_EMPTY_PATH]);
  return new Promise((resolve, reject) => {
    const pipe = checked(native().pipe(), 'pipe2', 'make the report pipe') as [number, number];
    let failure: NativeFailure | undefined;
    const fail = (): void =>
      reject(failure ? explainFailure(plan, failure) : new IsolationError('ERR_CLOISTER_NOT_STARTED', 'the init of a namespace was killed'));
    const held = new (native().Process)(
      plan.encode(),
      plan.slots(),
      pipe,
      false,
      (failed, executed, pid) => {
        failure = failed;
        // From now on it keeps a namespace, not this process.
        held.setRef(false);
        if (executed && !failed) resolve({ pid, end: () => held.signal(k.SIGKILL) });
        else if (held.pidfd() < 0) fail();
      },
      () => fail(),
    );
  });
}
