import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';

export async function becomeUnreadable(): Promise<void> {
  const plan = new PlanBuilder().in('parent').label('become unreadable');
  plan.add('prctl', [k.PR_SET_DUMPABLE, 0, 0, 0, 0]);
  await runPlan(plan);
}
