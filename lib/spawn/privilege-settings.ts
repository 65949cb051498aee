import { optionError } from '../errors.js';
import { type CapabilitySets, capabilityMask } from '../security/capabilities.js';
import { rlimitNumbers } from '../security/rlimits.js';
import type { Capability, Rlimit } from '../security/types.js';
import type { SpawnOptions } from './types.js';
import * as check from './validate.js';

// As whom the program runs, and what it may use: user, capabilities, resource limits.

export interface UserSetting {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

export interface RlimitSetting {
  readonly number: number;
  readonly name: string;
  readonly soft: number;
  readonly hard: number;
}

export function userOf(value: SpawnOptions['user']): UserSetting | string {
  if (value === undefined) return { uid: 0, gid: 0, groups: [] };
  if (typeof value === 'string') {
    if (!/^[^:\0]+(:[^:\0]+)?$/.test(value)) throw optionError('user', "'name', 'name:group', or numbers instead of names", value);
    const numeric = /^(\d+)(?::(\d+))?$/.exec(value);
    return numeric ? userOf({ uid: Number(numeric[1]), ...(numeric[2] === undefined ? {} : { gid: Number(numeric[2]) }) }) : value;
  }
  if (value === null || typeof value !== 'object') throw optionError('user', "a name, 'name:group', or { uid, gid, groups }", value);
  check.onlyKeys(value, 'user', ['uid', 'gid', 'groups']);
  const id = (number: unknown, option: string): number => check.integer(number, option, 0, 0xfffffffe);
  return {
    uid: id(value.uid ?? 0, 'user.uid'),
    gid: id(value.gid ?? 0, 'user.gid'),
    groups: value.groups === undefined ? [] : check.list(value.groups, 'user.groups', id),
  };
}

export function capabilitiesOf(value: SpawnOptions['capabilities'], user: UserSetting | string): CapabilitySets {
  if (value === undefined) return { bounding: 0n, effective: 0n, permitted: 0n, inheritable: 0n, ambient: 0n };
  if (Array.isArray(value)) {
    const mask = capabilityMask(value as readonly Capability[], 'capabilities');
    // Only an ambient capability survives the exec of a program that is not root's, capabilities(7).
    const kept = typeof user === 'string' || user.uid !== 0 ? mask : 0n;
    return { bounding: mask, effective: mask, permitted: mask, inheritable: kept, ambient: kept };
  }
  if (value === null || typeof value !== 'object') throw optionError('capabilities', 'an array of names, or an object of the five sets', value);
  const sets = value as Record<string, unknown>;
  const names = ['bounding', 'effective', 'permitted', 'inheritable', 'ambient'] as const;
  check.onlyKeys(sets, 'capabilities', names);
  const mask = (set: (typeof names)[number]): bigint =>
    sets[set] === undefined ? 0n : capabilityMask(check.list(sets[set], `capabilities.${set}`, check.text) as Capability[], `capabilities.${set}`);
  const result = Object.fromEntries(names.map((set) => [set, mask(set)])) as unknown as CapabilitySets;
  if ((result.effective & ~result.permitted) !== 0n) throw optionError('capabilities.effective', 'only what capabilities.permitted has too', sets['effective']);
  if ((result.ambient & ~(result.permitted & result.inheritable)) !== 0n)
    throw optionError('capabilities.ambient', 'only what permitted and inheritable have too', sets['ambient']);
  return result;
}

export function rlimitsOf(value: NonNullable<SpawnOptions['rlimits']>): RlimitSetting[] {
  check.record(value, 'rlimits');
  check.onlyKeys(value, 'rlimits', Object.keys(rlimitNumbers));
  return Object.entries(value).map(([name, limit]) => {
    if (typeof limit === 'object' && limit !== null) check.onlyKeys(limit, `rlimits.${name}`, ['soft', 'hard']);
    const { soft, hard } = typeof limit === 'object' && limit !== null ? limit : { soft: limit, hard: limit };
    for (const number of [soft, hard]) {
      if (typeof number !== 'number' || !(number >= 0) || (Number.isFinite(number) && !Number.isInteger(number))) {
        throw optionError(`rlimits.${name}`, 'a whole number, Infinity, or { soft, hard } of them', limit);
      }
    }
    if (soft > hard) throw optionError(`rlimits.${name}`, 'a soft limit that is not above the hard one', limit);
    return { number: rlimitNumbers[name as Rlimit], name, soft, hard };
  });
}
