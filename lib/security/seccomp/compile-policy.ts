// Policy → program: a balanced tree over the ranges of numbers that have the same answer.

import { dataOffset, type Label, ReverseAssembler } from './bpf.js';
import type { Comparison, Policy, Rule } from './policy.js';
import { type Architecture, auditArch, syscallNames, x32Bit } from './syscalls.js';

/** linux/filter.h, BPF_MAXINSNS. */
export const mostInstructions = 4096;

interface Range {
  readonly from: number;
  readonly rules: readonly Rule[];
  readonly otherwise: number;
  /** Ranges of the same answers have the same. */
  readonly key: string;
}

export function compilePolicy(policy: Policy): Uint8Array {
  const code = new ReverseAssembler();
  const byAudit = new Map<number, { readonly plain: Architecture | undefined; readonly x32: boolean }>();
  for (const architecture of policy.architectures) {
    const audit = auditArch[architecture];
    const before = byAudit.get(audit);
    byAudit.set(audit, { plain: architecture === 'x32' ? before?.plain : architecture, x32: architecture === 'x32' || (before?.x32 ?? false) });
  }
  let next = code.return(policy.foreign);
  for (const [audit, { plain, x32 }] of [...byAudit].reverse()) {
    const ranges = plain ? rangesOf(policy, plain, 0) : [constant(0, policy.foreign)];
    if (x32) ranges.push(...rangesOf(policy, 'x32', x32Bit));
    else if (audit === auditArch.x32) ranges.push(constant(x32Bit, policy.foreign));
    code.continueAt(tree(code, ranges));
    const section = code.load(dataOffset.number);
    next = code.branch('==', audit, section, next);
  }
  code.continueAt(next);
  code.load(dataOffset.architecture);
  return code.finish();
}

const constant = (from: number, answer: number): Range => ({ from, rules: [], otherwise: answer, key: String(answer) });

function rangesOf(policy: Policy, architecture: Architecture, base: number): Range[] {
  const ranges: Range[] = [];
  const add = (range: Range): void => {
    if (ranges.at(-1)?.key !== range.key) ranges.push(range);
  };
  let expected = 0;
  for (const [number, name] of [...syscallNames(architecture)].sort(([a], [b]) => a - b)) {
    if (number > expected) add(constant(base + expected, policy.unknown));
    const rules = policy.calls.get(name) ?? [];
    const [first] = rules;
    if (!first) add(constant(base + number, policy.otherwise));
    else if (first.when.length === 0) add(constant(base + number, first.action));
    else add({ from: base + number, rules, otherwise: policy.otherwise, key: name });
    expected = number + 1;
  }
  add(constant(base + expected, policy.unknown));
  return ranges;
}

function tree(code: ReverseAssembler, ranges: readonly Range[]): Label {
  const [first, second, third] = ranges as [Range, Range?, Range?];
  if (!second) return answers(code, first);
  // One number among others.
  if (ranges.length === 3 && third && first.key === third.key && third.from === second.from + 1) {
    const one = answers(code, second);
    return code.branch('==', second.from, one, answers(code, first));
  }
  const middle = ranges.length >> 1;
  const right = tree(code, ranges.slice(middle));
  const left = tree(code, ranges.slice(0, middle));
  return code.branch('>=', (ranges[middle] as Range).from, right, left);
}

function answers(code: ReverseAssembler, { rules, otherwise }: Range): Label {
  let next = code.return(otherwise);
  for (const { when, action } of [...rules].reverse()) {
    let yes = code.return(action);
    for (const comparison of [...when].reverse()) yes = compare(code, comparison, yes, next);
    next = yes;
  }
  return next;
}

const high = (value: bigint): number => Number(value >> 32n);
const low = (value: bigint): number => Number(value & 0xffffffffn);

/** 64 bits by two loads of 32; each leaves its half in the accumulator. */
function compare(code: ReverseAssembler, { index, operator, value, mask = 0n }: Comparison, yes: Label, no: Label): Label {
  const half = (offset: number, body: () => Label): Label => {
    code.continueAt(body());
    return code.load(offset);
  };
  const [lowAt, highAt] = [dataOffset.low(index), dataOffset.high(index)];
  if (operator === '!=') return compare(code, { index, operator: '==', value }, no, yes);
  if (operator === '<') return compare(code, { index, operator: '>=', value }, no, yes);
  if (operator === '<=') return compare(code, { index, operator: '>', value }, no, yes);
  if (operator === '==') {
    const lower = half(lowAt, () => code.branch('==', low(value), yes, no));
    return half(highAt, () => code.branch('==', high(value), lower, no));
  }
  if (operator === '&') {
    if ((value & ~mask) !== 0n) return no;
    const masked = (at: number, bits: number, want: number): Label => {
      if (bits === 0) return yes;
      const found = half(at, () => {
        code.continueAt(code.branch('==', want, yes, no));
        return bits === 0xffffffff ? code.length - 1 : code.and(bits);
      });
      return found;
    };
    yes = masked(lowAt, low(mask), low(value));
    return masked(highAt, high(mask), high(value));
  }
  const lower = half(lowAt, () => code.branch(operator, low(value), yes, no));
  return half(highAt, () => {
    const equal = code.branch('==', high(value), lower, no);
    return code.branch('>', high(value), yes, equal);
  });
}
