// Speculative execution, as far as one process can have it restricted: prctl(2), PR_SET_SPECULATION_CTRL and PR_SCHED_CORE;
// Documentation/userspace-api/spec_ctrl.rst, Documentation/admin-guide/hw-vuln/core-scheduling.rst.

import { look } from '../host/hints.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import type { Speculation } from './types.js';

export const speculations = ['store-bypass', 'indirect-branch', 'l1d-flush'] as const satisfies readonly Speculation[];

/** `status`: the line of /proc/PID/status that says when there is nothing to restrict, in arch/x86/kernel/cpu/bugs.c's words. */
const controls: Readonly<Record<Speculation, { which: number; how: number; status?: { line: string; done: RegExp } }>> = {
  'store-bypass': {
    which: k.PR_SPEC_STORE_BYPASS,
    how: k.PR_SPEC_FORCE_DISABLE,
    status: { line: 'Speculation_Store_Bypass', done: /^(not vulnerable|globally mitigated)$/ },
  },
  'indirect-branch': {
    which: k.PR_SPEC_INDIRECT_BRANCH,
    how: k.PR_SPEC_FORCE_DISABLE,
    status: { line: 'SpeculationIndirectBranch', done: /^(not affected|always disabled)$/ },
  },
  // Flushing is what is switched on.
  'l1d-flush': { which: k.PR_SPEC_L1D_FLUSH, how: k.PR_SPEC_ENABLE },
};

/** Before the program; it inherits them, and cannot take them back: FORCE_DISABLE. What the machine does for all anyway is passed over. */
export function restrictSpeculation(plan: PlanBuilder, asked: readonly Speculation[]): void {
  if (asked.length === 0) return;
  const text = look('/proc/self/status') ?? '';
  for (const name of asked) {
    const { which, how, status } = controls[name];
    const now = status && new RegExp(`^${status.line}:\\s*(.*)$`, 'm').exec(text)?.[1];
    if (now !== undefined && status?.done.test(now)) continue;
    plan.label('restrict speculation', name).add('prctl', [k.PR_SET_SPECULATION_CTRL, which, how, 0, 0]);
  }
}

/** A cookie of its own: no other process runs on the other threads of a core meanwhile. ENODEV: the cores have one thread each. */
export function shareNoCore(plan: PlanBuilder): void {
  plan.label('share no core').add('prctl', [k.PR_SCHED_CORE, k.PR_SCHED_CORE_CREATE, 0, k.PR_SCHED_CORE_SCOPE_THREAD_GROUP, 0], { tolerate: [k.ENODEV] });
}
