import type { Native, NativeFailure } from '../../types/native.js';
import { native } from '../native.js';
import type { PlanBuilder } from './builder.js';
import { explainFailure } from './failure.js';
import type { Slot } from './steps.js';

export interface PlanResult {
  /** The descriptor in a kept slot, which is the caller's; -1 if it was never filled. */
  (slot: Slot): number;
  /** What a read_head step has read. */
  readonly head: Buffer;
}

/** Runs a plan that has no child. */
export async function runPlan(plan: PlanBuilder): Promise<PlanResult> {
  let result: Awaited<ReturnType<Native['runPlan']>>;
  try {
    result = await native().runPlan(plan.encode(), plan.slots());
  } catch (failure) {
    if (failure instanceof Error) throw failure;
    throw explainFailure(plan, failure as NativeFailure);
  }
  const fds = new Map<number, number>();
  for (let i = 0; i < result.kept.length; i += 2) fds.set(result.kept[i] as number, result.kept[i + 1] as number);
  return Object.assign((slot: Slot) => fds.get(slot.slot) ?? -1, { head: result.head });
}
