// linux.seccomp of the OCI runtime specification (config-linux.md, "Seccomp") → policy.

import { constants } from 'node:os';
import { optionError } from '../../errors.js';
import type { SeccompProfile } from '../types.js';
import { action, type Comparison, type Policy, type Rule, strictness } from './policy.js';
import { type Architecture, isSyscall, nativeArchitecture } from './syscalls.js';

const EPERM = 1;
const mostErrno = 4095;

const operators: Readonly<Record<string, Comparison['operator']>> = {
  SCMP_CMP_NE: '!=',
  SCMP_CMP_LT: '<',
  SCMP_CMP_LE: '<=',
  SCMP_CMP_EQ: '==',
  SCMP_CMP_GE: '>=',
  SCMP_CMP_GT: '>',
  SCMP_CMP_MASKED_EQ: '&',
};

/** Those that this machine's kernel can be called by. The others of the specification are of machines that this one is not. */
const own: Readonly<Record<string, Architecture | undefined>> =
  nativeArchitecture === 'x86_64'
    ? { SCMP_ARCH_X86_64: 'x86_64', SCMP_ARCH_X86: 'x86', SCMP_ARCH_X32: 'x32' }
    : nativeArchitecture === 'aarch64'
      ? { SCMP_ARCH_AARCH64: 'aarch64' }
      : { SCMP_ARCH_RISCV64: 'riscv64' };

/** seccomp(2). TSYNC is for other threads, and there is none when the filter is installed. */
const flagBits: Readonly<Record<string, number>> = {
  SECCOMP_FILTER_FLAG_TSYNC: 0,
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
};

export interface OciPolicy {
  readonly policy: Policy;
  readonly flags: number;
}

/** Throws a TypeError that names the option. `decided`: the calls that JavaScript decides, for which SCMP_ACT_NOTIFY is right. */
export function policyOf(profile: SeccompProfile, option: string, decided: ReadonlySet<string> = new Set()): OciPolicy {
  if (profile === null || typeof profile !== 'object' || Array.isArray(profile))
    throw optionError(option, 'an object: linux.seccomp of the OCI specification', profile);
  for (const key of Object.keys(profile)) {
    if (!['defaultAction', 'defaultErrnoRet', 'architectures', 'flags', 'syscalls'].includes(key))
      throw optionError(`${option}.${key}`, 'nothing: there is no such option', (profile as unknown as Record<string, unknown>)[key]);
  }
  const otherwise = actionOf(profile.defaultAction, profile.defaultErrnoRet, `${option}.defaultAction`, `${option}.defaultErrnoRet`);
  if (otherwise === action.notify)
    throw optionError(`${option}.defaultAction`, 'another action: which calls JavaScript decides is said in seccomp.notify', profile.defaultAction);
  const calls = new Map<string, Rule[]>();
  for (const [index, entry] of list(profile.syscalls ?? [], `${option}.syscalls`).entries())
    addEntry(calls, entry, `${option}.syscalls[${index}]`, otherwise, decided);
  return {
    policy: {
      calls,
      otherwise,
      unknown: otherwise,
      foreign: action.errno(constants.errno.ENOSYS),
      architectures: architecturesOf(profile.architectures, `${option}.architectures`),
    },
    flags: list(profile.flags ?? [], `${option}.flags`).reduce<number>((bits, flag, index) => {
      const bit = flagBits[flag as string];
      if (bit === undefined) throw optionError(`${option}.flags[${index}]`, `one of ${Object.keys(flagBits).join(', ')}`, flag);
      return bits | bit;
    }, 0),
  };
}

function addEntry(calls: Map<string, Rule[]>, value: unknown, option: string, otherwise: number, decided: ReadonlySet<string>): void {
  if (value === null || typeof value !== 'object') throw optionError(option, 'an object with names and an action', value);
  const entry = value as NonNullable<SeccompProfile['syscalls']>[number];
  for (const key of Object.keys(entry)) {
    if (!['names', 'action', 'errnoRet', 'args', 'comment'].includes(key))
      throw optionError(`${option}.${key}`, 'nothing: there is no such option', (entry as unknown as Record<string, unknown>)[key]);
  }
  const names = list(entry.names, `${option}.names`);
  if (names.length === 0) throw optionError(`${option}.names`, 'at least one name', entry.names);
  const answer = actionOf(entry.action, entry.errnoRet, `${option}.action`, `${option}.errnoRet`);
  const when = list(entry.args ?? [], `${option}.args`).map((arg, index) => comparisonOf(arg, `${option}.args[${index}]`));
  for (const [index, name] of names.entries()) {
    const at = `${option}.names[${index}]`;
    if (typeof name !== 'string') throw optionError(at, 'the name of a system call', name);
    if (answer === action.notify && !decided.has(name)) throw optionError(at, 'a name that seccomp.notify has too, where the action is SCMP_ACT_NOTIFY', name);
    if (!isSyscall(name)) {
      // Profiles name calls of all machines. What is not let through anyway needs no number; what is to be denied does.
      if (strictness(answer) >= strictness(otherwise)) continue;
      throw optionError(at, 'the name of a system call that this version knows, as it cannot deny another', name);
    }
    const rules = calls.get(name) ?? [];
    const always = rules.find((rule) => rule.when.length === 0);
    if (always && always.action !== answer) throw optionError(at, 'a name that no entry before has decided already, whatever its arguments', name);
    if (!always) rules.push({ when, action: answer });
    calls.set(name, rules);
  }
}

function actionOf(value: unknown, errno: unknown, option: string, errnoOption: string): number {
  const takesErrno = value === 'SCMP_ACT_ERRNO' || value === 'SCMP_ACT_TRACE';
  if (errno !== undefined) {
    if (!takesErrno) throw optionError(errnoOption, 'nothing unless the action is SCMP_ACT_ERRNO or SCMP_ACT_TRACE', errno);
    // The kernel cuts larger ones off: seccomp(2), SECCOMP_RET_ERRNO.
    if (typeof errno !== 'number' || !Number.isInteger(errno) || errno < 0 || errno > mostErrno)
      throw optionError(errnoOption, `a whole number from 0 to ${mostErrno}`, errno);
  }
  const number = (errno ?? EPERM) as number;
  if (value === 'SCMP_ACT_ERRNO') return action.errno(number);
  if (value === 'SCMP_ACT_TRACE') return action.trace(number);
  const plain = {
    SCMP_ACT_KILL: action.killThread,
    SCMP_ACT_KILL_THREAD: action.killThread,
    SCMP_ACT_KILL_PROCESS: action.killProcess,
    SCMP_ACT_TRAP: action.trap,
    SCMP_ACT_ALLOW: action.allow,
    SCMP_ACT_LOG: action.log,
    SCMP_ACT_NOTIFY: action.notify,
  }[value as string];
  if (plain === undefined)
    throw optionError(option, 'an action of the OCI specification, such as SCMP_ACT_ALLOW, SCMP_ACT_ERRNO or SCMP_ACT_KILL_PROCESS', value);
  return plain;
}

function comparisonOf(value: unknown, option: string): Comparison {
  if (value === null || typeof value !== 'object') throw optionError(option, 'an object with index, value and op', value);
  const arg = value as Record<string, unknown>;
  for (const key of Object.keys(arg))
    if (!['index', 'value', 'valueTwo', 'op'].includes(key)) throw optionError(`${option}.${key}`, 'nothing: there is no such option', arg[key]);
  const { index, op } = arg;
  if (typeof index !== 'number' || !Number.isInteger(index) || index < 0 || index > 5)
    throw optionError(`${option}.index`, 'a whole number from 0 to 5', index);
  const operator = Object.hasOwn(operators, op as string) ? operators[op as string] : undefined;
  if (!operator) throw optionError(`${option}.op`, `one of ${Object.keys(operators).join(', ')}`, op);
  const first = word(arg['value'], `${option}.value`);
  const second = arg['valueTwo'] === undefined ? 0n : word(arg['valueTwo'], `${option}.valueTwo`);
  // The mask comes first: seccomp_rule_add(3), SCMP_CMP_MASKED_EQ.
  return operator === '&' ? { index, operator, mask: first, value: second } : { index, operator, value: first };
}

function word(value: unknown, option: string): bigint {
  const whole = typeof value === 'bigint' ? value : typeof value === 'number' && Number.isSafeInteger(value) ? BigInt(value) : -1n;
  if (whole < 0n || whole > 0xffffffffffffffffn) throw optionError(option, 'a whole number of 64 bits, not negative (a bigint above 2^53)', value);
  return whole;
}

function architecturesOf(value: unknown, option: string): Architecture[] {
  const listed = list(value ?? [], option).map((name, index) => {
    if (typeof name !== 'string' || !/^SCMP_ARCH_[A-Z0-9_]+$/.test(name)) throw optionError(`${option}[${index}]`, 'a name such as SCMP_ARCH_X86_64', name);
    return own[name];
  });
  return [...new Set([nativeArchitecture, ...listed.filter((architecture) => architecture !== undefined)])];
}

function list(value: unknown, option: string): unknown[] {
  if (!Array.isArray(value)) throw optionError(option, 'an array', value);
  return value;
}
