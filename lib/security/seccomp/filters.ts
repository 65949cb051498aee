// What of `seccomp` goes into a plan: programs, compiled once for each profile.

import { optionError } from '../../errors.js';
import type { CapabilitySets } from '../capabilities.js';
import type { SeccompProfile } from '../types.js';
import { compilePolicy, mostInstructions } from './compile-policy.js';
import { defaultPolicy } from './default-profile.js';
import { checkLaunch } from './launch-calls.js';
import { type Handlers, handlersOf } from './notify-handlers.js';
import { policyOf } from './oci-profile.js';
import type { Policy } from './policy.js';
import { split } from './supervised.js';

interface Profile {
  readonly name: 'default' | 'custom';
  readonly policy: Policy;
  readonly flags: number;
  /** By what they ask about. */
  readonly compiled: Map<string, Filters>;
}

export interface SeccompSetting {
  readonly profile: Profile;
  readonly handlers: Handlers;
}

/** The programs, in the order of their installation. */
export interface Filters {
  readonly flags: number;
  /** Has a listener. */
  readonly asks: Uint8Array | undefined;
  readonly refuses: Uint8Array;
  readonly instructions: number;
}

const defaults = new Map<bigint, Profile>();
const customs = new WeakMap<object, { readonly text: string; readonly profile: Profile }>();
const nobody: Handlers = new Map();

/** `gains`: without no_new_privs the filter comes before the last steps that take privileges away. Throws a TypeError. */
export function seccompOf(value: unknown, capabilities: CapabilitySets, gains: boolean): SeccompSetting | undefined {
  if (value === 'unconfined') return undefined;
  if (value === undefined || value === 'default') return { profile: defaultProfile(capabilities), handlers: nobody };
  if (value === null || typeof value !== 'object') throw optionError('seccomp', "'default', 'unconfined', a profile, or { profile, notify }", value);
  if (!('notify' in value)) return { profile: customProfile(value as SeccompProfile, 'seccomp', gains, new Set()), handlers: nobody };
  const { notify, profile, ...others } = value as { notify: unknown; profile?: unknown };
  for (const [key, other] of Object.entries(others))
    throw optionError(`seccomp.${key}`, 'nothing beside seccomp.notify: a profile is seccomp.profile there', other);
  const handlers = handlersOf(notify, 'seccomp.notify', gains);
  if (profile === undefined || profile === 'default') return { profile: defaultProfile(capabilities), handlers };
  return { profile: customProfile(profile as SeccompProfile, 'seccomp.profile', gains, new Set(handlers.keys())), handlers };
}

/** `denials`: what is refused is to be told. Throws a TypeError if a program would be too long. */
export function filtersOf({ profile, handlers }: SeccompSetting, denials: boolean): Filters {
  const key = `${denials} ${[...handlers.keys()].sort()}`;
  let filters = profile.compiled.get(key);
  if (!filters) {
    filters = compile(profile, handlers, denials);
    if (profile.compiled.size > 100) profile.compiled.clear();
    profile.compiled.set(key, filters);
  }
  return filters;
}

function compile({ policy, flags, name }: Profile, handlers: Handlers, denials: boolean): Filters {
  const program = (of: Policy): Uint8Array => {
    const bytes = compilePolicy(of);
    const instructions = bytes.byteLength / 8;
    if (instructions > mostInstructions)
      throw optionError('seccomp', `a profile of at most ${mostInstructions} instructions of BPF; this one has ${instructions}`, name);
    return bytes;
  };
  if (handlers.size === 0 && !denials) {
    const refuses = program(policy);
    return { flags, asks: undefined, refuses, instructions: refuses.byteLength / 8 };
  }
  const { asks, rest } = split(policy, new Set(handlers.keys()), denials);
  const [first, second] = [program(asks), program(rest)];
  return { flags, asks: first, refuses: second, instructions: (first.byteLength + second.byteLength) / 8 };
}

function defaultProfile({ bounding, permitted }: CapabilitySets): Profile {
  const capabilities = bounding | permitted;
  let profile = defaults.get(capabilities);
  if (!profile) {
    profile = { name: 'default', policy: defaultPolicy(capabilities), flags: 0, compiled: new Map() };
    if (defaults.size > 100) defaults.clear();
    defaults.set(capabilities, profile);
  }
  return profile;
}

function customProfile(value: SeccompProfile, option: string, gains: boolean, decided: ReadonlySet<string>): Profile {
  if (value === null || typeof value !== 'object') throw optionError(option, "'default', or a profile: linux.seccomp of the OCI specification", value);
  // The object may have been changed since.
  const text = JSON.stringify([value, [...decided]], (_, part) => (typeof part === 'bigint' ? `${part}n` : part));
  let known = customs.get(value);
  if (known?.text !== text) {
    known = { text, profile: { name: 'custom', ...policyOf(value, option, decided), compiled: new Map() } };
    // Its length is told before any system call, too.
    filtersOf({ profile: known.profile, handlers: nobody }, false);
    customs.set(value, known);
  }
  checkLaunch(known.profile.policy, option, gains);
  return known.profile;
}
