import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';

/** Of who has no death signal yet: if the host is killed before it has written the maps, nobody does, and this would wait for ever, with copies of the host's descriptors. */
export function awaitIds(plan: PlanBuilder): void {
  plan.label('die with the parent').add('prctl', [k.PR_SET_PDEATHSIG, k.SIGKILL, 0, 0, 0]);
  plan.add('expect_alive', []);
  plan.label('wait for the id maps').add('await_ids', []);
}
