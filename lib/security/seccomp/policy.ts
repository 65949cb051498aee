// What is answered to which call: the form that profiles have before they become a program.

import { type Architecture, syscallNames } from './syscalls.js';

/** linux/seccomp.h: SECCOMP_RET_*. The lower half of ERRNO, TRAP and TRACE is theirs to fill. */
export const action = {
  killProcess: 0x80000000,
  killThread: 0,
  trap: 0x00030000,
  errno: (number: number): number => 0x00050000 + number,
  notify: 0x7fc00000,
  trace: (message: number): number => 0x7ff00000 + message,
  log: 0x7ffc0000,
  allow: 0x7fff0000,
} as const;

/** Of filters that disagree the kernel takes the lowest, as a signed number: seccomp_run_filters. */
export const strictness = (value: number): number => (value & 0xffff0000) | 0;
export const isErrno = (value: number): boolean => strictness(value) === 0x00050000;
export const errnoOf = (value: number): number => value & 0xffff;

export type Operator = '==' | '!=' | '<' | '<=' | '>' | '>=' | '&';
/** `&`: the bits of `mask` are those of `value`. All on 64 bits, unsigned. */
export interface Comparison {
  readonly index: number;
  readonly operator: Operator;
  readonly value: bigint;
  readonly mask?: bigint;
}
export interface Rule {
  /** All of them. */
  readonly when: readonly Comparison[];
  readonly action: number;
}
export interface Policy {
  /** The first rule that fits decides. */
  readonly calls: ReadonlyMap<string, readonly Rule[]>;
  readonly otherwise: number;
  /** For numbers that no call of the table has. */
  readonly unknown: number;
  /** For calls by the way of another architecture than these. */
  readonly foreign: number;
  readonly architectures: readonly Architecture[];
}

function fits({ index, operator, value, mask }: Comparison, args: readonly bigint[]): boolean {
  const arg = args[index] ?? 0n;
  if (operator === '==') return arg === value;
  if (operator === '!=') return arg !== value;
  if (operator === '<') return arg < value;
  if (operator === '<=') return arg <= value;
  if (operator === '>') return arg > value;
  if (operator === '>=') return arg >= value;
  return (arg & (mask ?? 0n)) === value;
}

/** The same answer as the compiled program's. */
export function decide(policy: Policy, architecture: Architecture, number: number, args: readonly bigint[]): number {
  if (!policy.architectures.includes(architecture)) return policy.foreign;
  const name = syscallNames(architecture).get(number);
  if (name === undefined) return policy.unknown;
  return policy.calls.get(name)?.find(({ when }) => when.every((comparison) => fits(comparison, args)))?.action ?? policy.otherwise;
}
