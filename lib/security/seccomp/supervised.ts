// A profile as two filters: one that asks JavaScript, and one that refuses the rest. Of both answers the kernel takes the stricter, so
// what the first asks about the second must let through; seccomp(2), "SECCOMP_RET_ERRNO". Two, because a start goes on under the first:
// its listener has to be handed over.

import { constants } from 'node:os';
import { action, errnoOf, isErrno, type Policy, type Rule } from './policy.js';

/** Made between the two filters, when nobody is listening yet. */
const handsOver = new Set(['sendmsg', 'seccomp']);

/** What is told as denied. ENOSYS is no refusal: another way will be taken. */
export const isRefusal = (answer: number): boolean => isErrno(answer) && errnoOf(answer) !== constants.errno.ENOSYS;

/** `decided`: calls that handlers decide; `denials`: those that are refused with an errno are asked about as well. */
export function split(policy: Policy, decided: ReadonlySet<string>, denials: boolean): { readonly asks: Policy; readonly rest: Policy } {
  const told = (answer: number): boolean => denials && isRefusal(answer);
  const asks = new Map<string, readonly Rule[]>();
  const rest = new Map<string, readonly Rule[]>();
  for (const name of new Set([...policy.calls.keys(), ...decided, ...handsOver])) {
    const rules = [...(policy.calls.get(name) ?? []), { when: [], action: policy.otherwise }];
    const isDecided = decided.has(name);
    const asked = (answer: number): boolean => isDecided || (told(answer) && !handsOver.has(name));
    asks.set(
      name,
      rules.map(({ when, action: answer }) => ({ when, action: asked(answer) ? action.notify : action.allow })),
    );
    // 'continue' is what the profile says, by our own word (decide); only what kills or traps is left to the kernel.
    rest.set(
      name,
      rules.map(({ when, action: answer }) => ({ when, action: asked(answer) && (isErrno(answer) || answer === action.notify) ? action.allow : answer })),
    );
  }
  const ask = (answer: number): number => (told(answer) ? action.notify : action.allow);
  const keep = (answer: number): number => (told(answer) ? action.allow : answer);
  return {
    asks: { ...policy, calls: asks, otherwise: ask(policy.otherwise), unknown: ask(policy.unknown), foreign: action.allow },
    rest: { ...policy, calls: rest, otherwise: keep(policy.otherwise), unknown: keep(policy.unknown) },
  };
}
