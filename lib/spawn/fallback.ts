// `fallback: 'landlock'`: what is left where the host gives no namespaces. docs/fallback.md

import { IsolationError } from '../errors.js';
import { caller } from '../host/caller.js';
import { look } from '../host/hints.js';
import { namespaceTypes } from '../namespace/flags.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import * as structs from '../plan/structs.js';
import { systemDevices, systemPrograms, systemReads } from '../security/landlock/system-paths.js';
import type { LandlockRules } from '../security/types.js';
import { namespaceRefusal } from './namespace-trial.js';
import type { Prepared } from './prepare.js';
import type { UserSetting } from './privilege-settings.js';
import { dieWithParent } from './privileges.js';
import { defaultMaskedPaths, defaultReadonlyPaths, type Settings } from './settings.js';

export interface Fallback {
  /** The same program, with what can be had. */
  readonly settings: Settings;
  /** Paths of rules that are ours, and need not be there. */
  readonly optional: ReadonlySet<string>;
  /** Options, by name, that could not be had. */
  readonly missing: string[];
  /** Of the namespaces. */
  readonly refusal: IsolationError;
}

/** Undefined where namespaces can be had, or it was not asked for. Throws ERR_CLOISTER_FALLBACK where Landlock is no substitute. */
export async function fallbackOf(
  settings: Settings,
  prepare: (settings: Settings, child: readonly number[]) => Promise<Prepared>,
): Promise<Fallback | undefined> {
  if (settings.fallback !== 'landlock') return undefined;
  const refusal = await namespaceRefusal(settings, prepare);
  if (!refusal) return undefined;
  const irreplaceable = needsNamespaces(settings);
  if (irreplaceable.length > 0) {
    throw new IsolationError('ERR_CLOISTER_FALLBACK', `this host gives no namespaces, and Landlock cannot stand in for ${irreplaceable.join(', ')}`, {
      step: 'fall back to Landlock',
      cause: refusal,
      hint: `It changes what a program may do, not what it sees. Leave that out, or mend what refuses namespaces here: ${refusal.message}`,
      ...(refusal.evidence ? { evidence: refusal.evidence } : {}),
    });
  }
  return { ...without(settings), refusal };
}

/** What gives the program other contents than those of the host: it would run, and do something else. */
function needsNamespaces({ rootfs, image, namespaces, mounts, network, bridge, selinux }: Settings): string[] {
  return [
    ...(rootfs !== undefined || image !== undefined ? ['rootfs'] : []),
    ...mounts.flatMap((mount, index) => (mount.type === 'bind' && mount.source === mount.target ? [] : [`mounts[${index}] (${mount.type} ${mount.target})`])),
    ...(network || bridge ? ['network'] : []),
    ...(selinux ? ['selinux'] : []),
    ...namespaceTypes.filter((type) => typeof namespaces[type] === 'object').map((type) => `namespaces.${type}`),
  ];
}

function without(settings: Settings): Omit<Fallback, 'refusal'> {
  const { namespaces, landlock, capabilities, user } = settings;
  const { rules, optional } = rulesOf(settings);
  const mayChoose = mayChangeUser();
  const me: UserSetting = { uid: caller().uid, gid: caller().gid, groups: [] };
  const isAsked = typeof user === 'string' || user.uid !== 0 || user.gid !== 0 || user.groups.length > 0;
  const keepsUser = mayChoose || (typeof user === 'object' && user.uid === me.uid && user.gid === me.gid && user.groups.length === 0);
  const hasGroups = (process.getgroups?.() ?? []).some((group) => group !== me.gid);
  const missing = [
    ...namespaceTypes.filter((type) => namespaces[type] === 'new').map((type) => `namespaces.${type}`),
    ...(namespaces.mount === 'new' ? ['rootfs'] : []),
    ...(settings.hostname === undefined ? [] : ['hostname']),
    ...(settings.domainname === undefined ? [] : ['domainname']),
    ...(typeof settings.idMap === 'object' ? ['idMap'] : []),
    ...(settings.timeOffsets ? ['timeOffsets'] : []),
    ...(settings.sysctl.length > 0 ? ['sysctl'] : []),
    ...(settings.maskedPaths === defaultMaskedPaths ? [] : ['maskedPaths']),
    ...(settings.readonlyPaths === defaultReadonlyPaths ? [] : ['readonlyPaths']),
    ...(settings.init ? ['init'] : []),
    ...(isAsked && !keepsUser ? ['user'] : []),
    ...(hasGroups && !mayChoose ? ['user.groups'] : []),
    ...(capabilities !== 'caller' && (capabilities.permitted | capabilities.bounding) !== 0n ? ['capabilities'] : []),
  ];
  const none = Object.fromEntries(namespaceTypes.map((type) => [type, 'host'])) as Settings['namespaces'];
  return {
    settings: {
      ...settings,
      ...{ namespaces: none, rootfs: undefined, mounts: [], readonly: false, maskedPaths: [], readonlyPaths: [] },
      ...{ hostname: undefined, domainname: undefined, timeOffsets: undefined, sysctl: [], init: false, idMap: 'auto' },
      user: isAsked && keepsUser ? user : me,
      capabilities: { bounding: 0n, effective: 0n, permitted: 0n, inheritable: 0n, ambient: 0n },
      landlock: { ...landlock, ...rules },
    },
    optional,
    missing,
  };
}

/** Lists that are given stay what they are; the others, which would leave a kind free, become the least that a program runs with. */
function rulesOf({ landlock = {}, mounts, namespaces, tty }: Settings): { rules: LandlockRules; optional: Set<string> } {
  const shown = mounts.flatMap((mount) => (mount.type === 'bind' ? [mount] : []));
  const sources = shown.map(({ source }) => source);
  const devices = [...systemDevices, ...(tty ? ['/dev/pts'] : [])];
  const ours = [...systemReads, ...devices];
  const network = namespaces.net === 'new';
  return {
    optional: new Set(ours.filter((path) => !sources.includes(path))),
    rules: {
      read: landlock.read ?? [...ours, ...sources],
      write: landlock.write ?? [...devices, ...shown.filter(({ readonly }) => !readonly).map(({ source }) => source)],
      execute: landlock.execute ?? [...systemPrograms, ...sources],
      ...(network ? { connectTcp: landlock.connectTcp ?? [], bindTcp: landlock.bindTcp ?? [] } : {}),
      scope: [
        ...new Set([
          ...(landlock.scope ?? []),
          ...(namespaces.pid === 'new' ? (['signal'] as const) : []),
          ...(network ? (['abstract-unix-socket'] as const) : []),
        ]),
      ],
    },
  };
}

const [capSetgid, capSetuid, capSetpcap] = [6, 7, 8];
const may = (capability: number): boolean => ((caller().effective >> BigInt(capability)) & 1n) === 1n;
// Who is in a user namespace that has given up setgroups cannot shed groups, whatever its capabilities: user_namespaces(7).
const mayChangeUser = (): boolean => may(capSetuid) && may(capSetgid) && look('/proc/self/setgroups') !== 'deny';

/**
 * Nothing is left that could be given up by a right that is missing: no_new_privs keeps every program that it executes from gaining
 * one, so a bounding set that stays, as only CAP_SETPCAP takes from it, has no effect. capabilities(7), prctl(2)
 */
export function giveUpPrivileges(plan: PlanBuilder, settings: Settings, { uid, gid, groups }: UserSetting, confine: (() => void) | undefined): void {
  plan.label('drop capabilities');
  if (may(capSetpcap)) plan.add('drop_bounding', [0, caller().lastCapability]);
  if (mayChangeUser()) {
    plan.label('become the user', `${uid}:${gid}`);
    plan.add('setgroups', [groups.length, groups.length === 0 ? null : structs.groupList(groups)]);
    plan.add('setresgid', [gid, gid, gid]);
    plan.add('setresuid', [uid, uid, uid]);
  }
  plan.label('drop capabilities').add('capset', [structs.capabilityHeader(), structs.capabilityData(0n, 0n, 0n)]);
  plan.add('prctl', [k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0]);
  confine?.();
  plan.label('set no_new_privs').add('prctl', [k.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]);
  dieWithParent(plan, settings);
}
