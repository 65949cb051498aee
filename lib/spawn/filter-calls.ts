// The filter of system calls: the last that a program is given.

import type { PlanBuilder } from '../plan/builder.js';
import type { Settings } from './settings.js';

export function filterCalls(plan: PlanBuilder, { seccomp }: Settings): void {
  if (!seccomp) return;
  plan.label('filter system calls').add('install_filter', [seccomp.flags, seccomp.program]);
}
