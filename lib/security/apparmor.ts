// A profile of AppArmor, which the host has loaded: apparmor(7), aa_change_profile(2).

import { readdirSync } from 'node:fs';
import { IsolationError } from '../errors.js';
import { look } from '../host/hints.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import type { Slot } from '../plan/steps.js';
import type { AppArmorProfile } from './types.js';

/** profiles/apparmor/cloister-default */
export const defaultProfile = 'cloister-default';

let on: boolean | undefined;
/** Decided when the host is booted. */
export const appArmorIsOn = (): boolean => {
  on ??= look('/sys/module/apparmor/parameters/enabled') === 'Y';
  return on;
};

/**
 * The profile to change to. The default one only where it is loaded now (it may be at any time), and nothing confines us: whoever confined
 * this process has decided for its sandboxes as well. Throws ERR_CLOISTER_LABEL where AppArmor is off.
 */
export function profileToEnter(asked: string | false | undefined): string | undefined {
  if (asked === false) return undefined;
  if (asked !== undefined && !appArmorIsOn()) {
    const enabled = look('/sys/module/apparmor/parameters/enabled');
    throw new IsolationError('ERR_CLOISTER_LABEL', `AppArmor is off on this host, so nothing can be confined by its profile ${asked}`, {
      step: 'confine by AppArmor',
      path: asked,
      hint: 'Leave apparmor out, or boot a kernel that has it with lsm=…,apparmor among its parameters (/sys/kernel/security/lsm lists what is on).',
      evidence: [`/sys/module/apparmor/parameters/enabled ${enabled === undefined ? 'cannot be read' : `is ${enabled}`}`],
    });
  }
  if (asked !== undefined) return asked;
  return appArmorIsOn() && isLoaded(defaultProfile) && profileOf('self') === false ? defaultProfile : undefined;
}

/**
 * Seen in securityfs, as an ordinary user too. A change that is only tried (permprofile) would tell as well, but a name that is not there goes
 * into the host's audit log each time.
 */
function isLoaded(profile: string): boolean {
  try {
    // Directories are named NAME.NUMBER: __aafs_profile_mkdir.
    return readdirSync('/sys/kernel/security/apparmor/policy/profiles').some(
      (name) => name.startsWith(`${profile}.`) && /^\d+$/.test(name.slice(profile.length + 1)),
    );
  } catch {
    return false;
  }
}

/** As the kernel tells it: 'NAME (MODE)', or 'unconfined'. False: nothing confines it. Undefined: that is not shown to us. */
export function profileOf(pid: number | 'self'): AppArmorProfile | false | undefined {
  if (!appArmorIsOn()) return false;
  const text = look(`/proc/${pid}/attr/apparmor/current`);
  if (text === undefined) return undefined;
  const [, profile = text, mode] = /^(.*) \((\w+)\)$/s.exec(text) ?? [];
  return mode === undefined || mode === 'unconfined' ? false : { profile, mode };
}

/**
 * By a proc of the host's that was opened before: one that the root has could be covered, and take the change as a file takes text
 * (CVE-2019-16884). Per module since Linux 5.8.
 */
export function openProfile(plan: PlanBuilder, proc: Slot, profile: string): Slot {
  return plan.label('confine by AppArmor', profile).open('AppArmor profile', 'openat', [proc, 'self/attr/apparmor/current', k.O_WRONLY | k.O_CLOEXEC, 0]);
}

/**
 * At once and not by exec (change_onexec): a change of profiles at exec takes the death signal away (apparmor_bprm_committing_creds), and
 * the program would outlive us. So the profile has to let the program itself be executed in it (`file,` or `ix`), and with
 * noNewPrivileges: false the default filter is in force before. no_new_privs comes after: who is confined may then only stack
 * (aa_change_profile in security/apparmor/domain.c).
 */
export function changeProfile(plan: PlanBuilder, file: Slot, profile: string): void {
  plan.label('confine by AppArmor', profile).add('write', [file, Buffer.from(`changeprofile ${profile}`)]);
}
