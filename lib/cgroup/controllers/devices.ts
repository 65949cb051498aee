import { optionError } from '../../errors.js';
import * as check from '../../spawn/validate.js';
import type { DeviceRule } from '../types.js';
import { type Controller, cannotExpress } from './controller.js';

/** A rule with all its fields; undefined numbers are any. */
export interface Rule {
  readonly allow: boolean;
  readonly type: 'a' | 'b' | 'c';
  readonly major: number | undefined;
  readonly minor: number | undefined;
  readonly access: string;
}

/** cgroup-v1/devices.rst. v2 has no files for it: there, also beside v1, a BPF program decides (device-program.ts). The last rule that fits wins. */
export const devices: Controller<'devices', readonly Rule[]> = {
  key: 'devices',
  v1: 'devices',
  v2: undefined,

  check: (value, option) => check.list(value, option, ruleOf),

  // 'a' alone is the default of the group, and forgets all rules before it; a group of v1 remembers exceptions from that, no others.
  writes: (rules) => {
    const forAll = rules.map(isAll).lastIndexOf(true);
    const byDefault = forAll < 0 ? true : (rules[forAll] as Rule).allow;
    const exceptions: Rule[] = [];
    for (const rule of rules.slice(forAll + 1)) {
      if (rule.allow !== byDefault) exceptions.push(rule);
      else if (exceptions.some((other) => overlap(rule, other))) {
        // dev_exception_rm takes away what matches exactly, and passes over all else in silence.
        throw cannotExpress('a device rule that takes back a part of one before it', 'v1', 'it has a default and exceptions from it; v2 can say it');
      }
    }
    return [
      { file: byDefault ? 'devices.allow' : 'devices.deny', text: 'a' },
      ...exceptions.map((rule) => ({
        file: rule.allow ? 'devices.allow' : 'devices.deny',
        text: `${rule.type} ${rule.major ?? '*'}:${rule.minor ?? '*'} ${rule.access}`,
      })),
    ];
  },

  limits: (_version, read) =>
    (read('devices.list') ?? '')
      .split('\n')
      .filter((line) => line !== '')
      .map((line): DeviceRule => {
        const [type, numbers = '', access = 'rwm'] = line.split(' ');
        const [major, minor] = numbers.split(':');
        return {
          allow: true,
          type: type as Rule['type'],
          ...(major === undefined || major === '*' ? {} : { major: Number(major) }),
          ...(minor === undefined || minor === '*' ? {} : { minor: Number(minor) }),
          access,
        };
      }),
};

export const isAll = ({ type, major, minor, access }: Rule): boolean => type === 'a' && major === undefined && minor === undefined && access === 'rwm';

function overlap(a: Rule, b: Rule): boolean {
  const same = (one: number | undefined, other: number | undefined): boolean => one === undefined || other === undefined || one === other;
  return a.type === b.type && same(a.major, b.major) && same(a.minor, b.minor) && [...a.access].some((letter) => b.access.includes(letter));
}

function ruleOf(value: unknown, option: string): Rule {
  const given = check.record(value, option);
  check.onlyKeys(given, option, ['allow', 'type', 'major', 'minor', 'access']);
  const { major, minor } = given;
  const access = given['access'] ?? 'rwm';
  if (typeof access !== 'string' || !/^(?!.*(.).*\1)[rwm]{1,3}$/.test(access))
    throw optionError(`${option}.access`, "some of 'r', 'w' and 'm' (mknod)", access);
  const number = (field: unknown, name: string): number | undefined =>
    field === undefined ? undefined : check.integer(field, `${option}.${name}`, 0, 2 ** 32 - 1);
  const rule: Rule = {
    allow: check.flag(given['allow'], `${option}.allow`),
    type: check.oneOf(given['type'], `${option}.type`, ['a', 'b', 'c']),
    major: number(major, 'major'),
    minor: number(minor, 'minor'),
    // In one order, so that equal rules are equal texts.
    access: [...'rwm'].filter((letter) => access.includes(letter)).join(''),
  };
  if (rule.type === 'a' && !isAll(rule))
    throw optionError(`${option}.type`, "'b' or 'c' with a major, a minor or an access: 'a' means all of all devices", 'a');
  return rule;
}
