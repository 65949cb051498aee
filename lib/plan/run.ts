import { native } from '../native.js';
import type { NativeFailure } from '../../types/native.js';
import type { PlanBuilder } from './builder.js';
import { explainFailure } from './failure.js';
import type { Slot } from './steps.js';

/** Runs a plan that has no child. The descriptors of its kept slots, which are the caller's. */
export async function runPlan(plan: PlanBuilder): Promise<(slot: Slot) => number> {
  const fds = new Map<number, number>();
  try {
    const kept = await native().runPlan(plan.encode(), plan.slots());
    for (let i = 0; i < kept.length; i += 2) fds.set(kept[i] as number, kept[i + 1] as number);
  } catch (failure) {
    if (failure instanceof Error) throw failure;
    throw explainFailure(plan, failure as NativeFailure);
  }
  return (slot) => fds.get(slot.slot) ?? -1;
}
