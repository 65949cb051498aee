// What of `seccomp` goes into a plan: programs, compiled once for each profile.

import { optionError } from '../../errors.js';
import type { CapabilitySets } from '../capabilities.js';
import type { SeccompProfile } from '../types.js';
import { compilePolicy, mostInstructions } from './compile-policy.js';
import { defaultPolicy } from './default-profile.js';
import { policyOf } from './oci-profile.js';
import { action, type Policy, strictness } from './policy.js';

export interface SeccompSetting {
  readonly profile: 'default' | 'custom';
  readonly policy: Policy;
  readonly flags: number;
  readonly program: Uint8Array;
  readonly instructions: number;
}

const defaults = new Map<bigint, SeccompSetting>();
const customs = new WeakMap<object, { readonly text: string; readonly setting: SeccompSetting }>();

/** `gains`: without no_new_privs the filter comes before the last steps that take privileges away. Throws a TypeError. */
export function seccompOf(value: unknown, capabilities: CapabilitySets, gains: boolean): SeccompSetting | undefined {
  const setting = settingFor(value, capabilities);
  if (setting?.profile === 'custom') checkLaunch(setting.policy, 'seccomp', gains);
  return setting;
}

function settingFor(value: unknown, capabilities: CapabilitySets): SeccompSetting | undefined {
  if (value === 'unconfined') return undefined;
  if (value === undefined || value === 'default') return defaultSetting(capabilities);
  if (value === null || typeof value !== 'object') throw optionError('seccomp', "'default', 'unconfined', or a profile", value);
  if ('notify' in value || 'profile' in value) throw optionError('seccomp', 'no notify in this version', value);
  return customSetting(value as SeccompProfile, 'seccomp');
}

function defaultSetting({ bounding, permitted }: CapabilitySets): SeccompSetting {
  const capabilities = bounding | permitted;
  let setting = defaults.get(capabilities);
  if (!setting) {
    setting = settingOf('default', defaultPolicy(capabilities), 0, 'seccomp');
    if (defaults.size > 100) defaults.clear();
    defaults.set(capabilities, setting);
  }
  return setting;
}

function customSetting(profile: SeccompProfile, option: string): SeccompSetting {
  // The object may have been changed since.
  const text = JSON.stringify(profile, (_, value) => (typeof value === 'bigint' ? `${value}n` : value));
  const known = customs.get(profile);
  if (known?.text === text) return known.setting;
  const { policy, flags } = policyOf(profile, option);
  const setting = settingOf('custom', policy, flags, option);
  customs.set(profile, { text, setting });
  return setting;
}

function settingOf(profile: SeccompSetting['profile'], policy: Policy, flags: number, option: string): SeccompSetting {
  const program = compilePolicy(policy);
  const instructions = program.byteLength / 8;
  if (instructions > mostInstructions)
    throw optionError(option, `a profile of at most ${mostInstructions} instructions of BPF; this one has ${instructions}`, profile);
  return { profile, policy, flags, program, instructions };
}

const needed = new Set(['execve', 'exit_group']);
const launch = [...needed, 'execveat', 'faccessat', 'openat', 'read', 'close'];
const launchThatGains = ['capset', 'prctl', 'rt_sigprocmask'];

/**
 * The filter is in force while the program is executed, and while a failure of that is told: by a process that still shares our
 * memory, which must neither be dumped (a killed process may be, core(5)) nor be unable to end.
 */
function checkLaunch(policy: Policy, option: string, gains: boolean): void {
  for (const name of [...launch, ...(gains ? launchThatGains : [])]) {
    const answers = [...(policy.calls.get(name) ?? []), { when: [], action: policy.otherwise }];
    const until = answers.findIndex(({ when }) => when.length === 0);
    for (const { action: answer } of answers.slice(0, until + 1)) {
      if (needed.has(name) && strictness(answer) < strictness(action.log))
        throw optionError(option, `a profile that allows ${name}: without it no program can be started`, name);
      if (strictness(answer) <= strictness(action.trap))
        throw optionError(option, `a profile that refuses ${name} by an errno at most: starting a program makes that call`, name);
    }
  }
}
