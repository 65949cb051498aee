// The filters of system calls: the last that a program is given.

import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import type { Slot } from '../plan/steps.js';
import type { Filters } from '../security/seccomp/filters.js';

/** `channel`: where the listener goes, of a filter that asks. */
export function filterCalls(plan: PlanBuilder, { flags, asks, refuses }: Filters, channel: Slot | undefined): void {
  if (asks && channel) {
    plan.label('ask about system calls');
    // An answer that has begun to be made is waited for, so that no signal has a call made twice: seccomp_unotify(2).
    const listening = k.SECCOMP_FILTER_FLAG_NEW_LISTENER | k.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    const listener = plan.open('listener', 'install_filter', [flags | listening, asks]);
    plan.add('send_fd', [channel, listener]);
  }
  plan.label('filter system calls').add('install_filter', [flags, refuses]);
}
