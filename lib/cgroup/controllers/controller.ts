import { CgroupError, optionError } from '../../errors.js';
import { parseBytes } from '../../units.js';
import type { Version } from '../hierarchies.js';
import type { CgroupLimits, CgroupLimitsNow } from '../types.js';

/** One write(2) to a file of a group. */
export interface Write {
  readonly file: string;
  readonly text: string;
  /** Written where the kernel has no `file`. */
  readonly otherwise?: string;
}

/** A file of a group, without the newline at its end; undefined if the kernel does not have it. */
export type Reader = (file: string) => string | undefined;

export interface Controller<K extends keyof CgroupLimits, Checked> {
  /** The option of CgroupLimits. */
  readonly key: K;
  /** As cgroup.controllers (v2) and /proc/cgroups (v1) name it; undefined where a version does not have it. */
  readonly v1: string | undefined;
  readonly v2: string | undefined;
  /** Throws a TypeError; makes no system call, but for a device that is named by its path. */
  check(value: unknown, option: string): Checked;
  /** What sets these limits, in order; `now` are the limits of a group that exists. Throws what a version cannot express. */
  writes(limits: Checked, version: Version, now: Reader): Write[];
  limits(version: Version, read: Reader): CgroupLimitsNow[K] | undefined;
  /** What a new group of v1 needs before a process can enter it. */
  prepare?(parent: Reader): Write[];
}

export function cannotExpress(limit: string, version: Version, why: string): CgroupError {
  return new CgroupError('ERR_CLOISTER_CGROUP_UNSUPPORTED', `cgroup ${version} cannot express ${limit}: ${why}`, { step: `limit ${limit}` });
}

/** Infinity for 'max'. */
export function bytesOrMax(value: unknown, option: string): number {
  if (value === 'max' || value === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
  try {
    return parseBytes(value, option);
  } catch {
    throw optionError(option, "bytes, such as '512M' or 536870912, or 'max'", value);
  }
}

/** Infinity for 'max'. */
export function countOrMax(value: unknown, option: string, least = 0): number {
  if (value === 'max' || value === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least) throw optionError(option, `a whole number from ${least} on, or 'max'`, value);
  return value;
}

export const maxText = (number: number): string => (number === Number.POSITIVE_INFINITY ? 'max' : String(number));

/** `max`, '-1', or a v1 page counter's largest value, PAGE_COUNTER_MAX rounded to pages, are no limit. */
export function parseLimit(text: string | undefined): number {
  const number = text === undefined || text === 'max' ? Number.POSITIVE_INFINITY : Number(text);
  return number < 0 || number >= 2 ** 62 ? Number.POSITIVE_INFINITY : number;
}

/** Lines of `key value`. */
export function flatKeyed(text: string | undefined): Record<string, number> {
  const result: Record<string, number> = {};
  for (const line of (text ?? '').split('\n')) {
    const space = line.indexOf(' ');
    if (space > 0) result[line.slice(0, space)] = Number(line.slice(space + 1));
  }
  return result;
}

/** Lines of `name key=value key=value`. */
export function nestedKeyed(text: string | undefined): Record<string, Record<string, string>> {
  const result: Record<string, Record<string, string>> = {};
  for (const line of (text ?? '').split('\n')) {
    const [name, ...pairs] = line.split(' ');
    if (!name) continue;
    result[name] = Object.fromEntries(pairs.map((pair) => pair.split('=') as [string, string]));
  }
  return result;
}
