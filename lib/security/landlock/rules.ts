import { optionError } from '../../errors.js';
import * as check from '../../spawn/validate.js';
import type { LandlockRules } from '../types.js';
import { scopes } from './rights.js';

const lists = ['read', 'write', 'execute'] as const;
const ports = ['connectTcp', 'bindTcp'] as const;

/** The option `landlock`. A list that is given restricts its kind to what it names; a kind without a list stays as it is. */
export function checkLandlock(value: unknown): LandlockRules {
  const rules = check.record(value, 'landlock');
  check.onlyKeys(rules, 'landlock', [...lists, ...ports, 'scope']);
  const result: LandlockRules = {};
  for (const key of lists) if (rules[key] !== undefined) result[key] = check.list(rules[key], `landlock.${key}`, check.absolutePath);
  const port = (number: unknown, option: string): number => check.integer(number, option, 0, 65535);
  for (const key of ports) if (rules[key] !== undefined) result[key] = check.list(rules[key], `landlock.${key}`, port);
  if (rules['scope'] !== undefined) result.scope = check.list(rules['scope'], 'landlock.scope', scopeOf);
  const restricts = Object.entries(result).some(([key, list]) => key !== 'scope' || list.length > 0);
  // Nothing to restrict is what the kernel calls ENOMSG; who writes it means something else.
  if (!restricts) throw optionError('landlock', 'at least one list: read, write, execute, connectTcp, bindTcp, or a scope', value);
  return result;
}

function scopeOf(value: unknown, option: string): keyof typeof scopes {
  if (typeof value !== 'string' || !Object.hasOwn(scopes, value)) throw optionError(option, "'signal' or 'abstract-unix-socket'", value);
  return value as keyof typeof scopes;
}
