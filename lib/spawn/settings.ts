// Options → settings: checked, with every default filled in, before any system call. What a later version brings is refused.

import { isAbsolute } from 'node:path';
import { Cgroup } from '../cgroup/cgroup.js';
import { checkLimits, type Limits, noLimits } from '../cgroup/limits.js';
import { optionError } from '../errors.js';
import { Image } from '../image/image.js';
import { imageDefaults } from '../image/spawn-defaults.js';
import { namespaceTypes } from '../namespace/flags.js';
import { Namespace } from '../namespace/namespace.js';
import type { IdMap, NamespaceType } from '../namespace/types.js';
import { type NetworkSettings, networkOf } from '../network/options.js';
import { OverlayRootfs } from '../rootfs/overlay-rootfs.js';
import type { CapabilitySets } from '../security/capabilities.js';
import { checkIdMap } from '../security/id-map.js';
import { checkLandlock } from '../security/landlock/rules.js';
import { type SeccompSetting, seccompOf } from '../security/seccomp/filters.js';
import { speculations } from '../security/speculation.js';
import { checkSysctl } from '../security/sysctl.js';
import type { LandlockRules, SelinuxLabels, Speculation } from '../security/types.js';
import { parseBytes } from '../units.js';
import { type BridgeSetting, bridgeOf, withoutBridge } from './bridge-settings.js';
import { apparmorOf, selinuxOf } from './label-settings.js';
import { type MountSetting, mountOf } from './mount-settings.js';
import { nameFiles } from './name-files.js';
import { refuseOthersNames } from './others-names.js';
import { capabilitiesOf, type RlimitSetting, rlimitsOf, type UserSetting, userOf } from './privilege-settings.js';
import { isPiped, stdioOf, ttyOf } from './stdio-settings.js';
import type { SpawnOptions, StdioOption } from './types.js';
import * as check from './validate.js';

export type NamespaceChoice = 'new' | 'host' | Namespace;

export interface Settings {
  readonly command: string;
  readonly args: readonly string[];
  readonly rootfs: OverlayRootfs | string | undefined;
  /** The root is a new one on its layers. */
  readonly image: Image | undefined;
  readonly readonly: boolean;
  readonly mounts: readonly MountSetting[];
  readonly cwd: string | undefined;
  readonly env: Readonly<Record<string, string>>;
  /** Nobody has said what HOME is, and the user is one by name: then it is what the inside's passwd says. */
  readonly homeOfUser: boolean;
  readonly hostname: string | undefined;
  readonly domainname: string | undefined;
  readonly namespaces: Readonly<Record<NamespaceType, NamespaceChoice>>;
  readonly idMap: 'auto' | 'self' | IdMap;
  readonly timeOffsets: { readonly monotonic: number; readonly boottime: number } | undefined;
  readonly bridge: BridgeSetting | undefined;
  readonly network: NetworkSettings | undefined;
  /** Limits: a group of its own. */
  readonly cgroup: Cgroup | Limits | undefined;
  /** Milliseconds of processor time. */
  readonly cpuTimeLimit: number | undefined;
  /** A string is looked up inside. */
  readonly user: UserSetting | string;
  /** 'caller': what the caller has, in namespaces that it enters (Namespace.run). */
  readonly capabilities: CapabilitySets | 'caller';
  readonly landlock: LandlockRules | undefined;
  readonly noNewPrivileges: boolean;
  /** undefined: the default one, where there is one. */
  readonly apparmor: string | false | undefined;
  readonly selinux: SelinuxLabels | undefined;
  /** undefined: unconfined. */
  readonly seccomp: SeccompSetting | undefined;
  readonly speculation: readonly Speculation[];
  readonly coreScheduling: boolean;
  readonly maskedPaths: readonly string[];
  readonly readonlyPaths: readonly string[];
  readonly rlimits: readonly RlimitSetting[];
  readonly sysctl: readonly (readonly [path: string, value: string])[];
  readonly umask: number;
  readonly oomScoreAdj: number | undefined;
  readonly fallback: 'never' | 'landlock';
  readonly stdio: readonly StdioOption[];
  readonly tty: { readonly columns: number; readonly rows: number } | undefined;
  readonly init: boolean;
  readonly timeout: number | undefined;
  readonly outputLimit: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly killSignal: NodeJS.Signals;
  readonly killGrace: number;
  readonly detached: boolean;
}

/** runtime-spec's config of runc and Docker: what the kernel shows of the host beyond what a namespace hides. */
export const defaultMaskedPaths: readonly string[] = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
];
export const defaultReadonlyPaths: readonly string[] = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

export const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const optionNames = [
  'rootfs',
  'readonly',
  'mounts',
  'cwd',
  'env',
  'hostname',
  'domainname',
  'namespaces',
  'idMap',
  'timeOffsets',
  'network',
  'cgroup',
  'user',
  'capabilities',
  'seccomp',
  'landlock',
  'noNewPrivileges',
  'apparmor',
  'selinux',
  'speculation',
  'coreScheduling',
  'maskedPaths',
  'readonlyPaths',
  'rlimits',
  'sysctl',
  'umask',
  'oomScoreAdj',
  'fallback',
  'stdio',
  'tty',
  'init',
  'timeout',
  'cpuTimeLimit',
  'outputLimit',
  'signal',
  'killSignal',
  'killGrace',
  'detached',
] as const satisfies readonly (keyof SpawnOptions)[];

export function settingsOf(command: unknown, args: unknown, options: SpawnOptions): Settings {
  if (typeof command !== 'string' || command === '' || command.includes('\0')) throw optionError('command', 'the name or path of a program', command);
  const words = args === undefined ? [] : check.list(args, 'args', check.text);
  check.record(options, 'options');
  refuseOthersNames(options);
  check.onlyKeys(options, '', optionNames);
  const network = networkOf(withoutBridge(options.network));
  const namespaces = namespacesOf(options);
  const bridge = bridgeOf(options, namespaces);
  const timeOffsets = options.timeOffsets === undefined ? undefined : timeOffsetsOf(options.timeOffsets);
  const tty = ttyOf(options.tty);
  const stdio = stdioOf(options.stdio, tty !== undefined);
  const image = options.rootfs instanceof Image ? options.rootfs : undefined;
  const ofImage = image && imageDefaults(image);
  const user = userOf(options.user === undefined ? ofImage?.user : options.user);
  const rootfs = image ? undefined : rootfsOf(options.rootfs);
  const inHostMounts = namespaces.mount !== 'new';
  for (const option of ['rootfs', 'readonly', 'mounts', 'maskedPaths', 'readonlyPaths'] as const) {
    if (inHostMounts && options[option] !== undefined) throw optionError(option, "nothing when namespaces.mount is not 'new'", options[option]);
  }
  if (options.hostname !== undefined && namespaces.uts !== 'new') throw optionError('hostname', "nothing when namespaces.uts is not 'new'", options.hostname);
  if (options.domainname !== undefined && namespaces.uts !== 'new')
    throw optionError('domainname', "nothing when namespaces.uts is not 'new'", options.domainname);
  if (options.idMap !== undefined && namespaces.user !== 'new')
    throw optionError('idMap', "nothing when namespaces.user is not 'new': its ids are mapped already", options.idMap);
  if (timeOffsets && namespaces.time !== 'new') throw optionError('timeOffsets', "nothing when namespaces.time is not 'new'", options.timeOffsets);
  const init = options.init === undefined ? false : check.flag(options.init, 'init');
  if (init && namespaces.pid !== 'new') throw optionError('init', "false when namespaces.pid is not 'new': an init is PID 1", init);
  const outputLimit = options.outputLimit === undefined ? undefined : parseBytes(options.outputLimit, 'outputLimit');
  if (outputLimit !== undefined && !isPiped(stdio[1]) && !isPiped(stdio[2]) && !tty) {
    throw optionError('outputLimit', 'nothing when neither stdout nor stderr is piped: there is nothing to count', options.outputLimit);
  }
  const mounts = options.mounts === undefined ? [] : check.list(options.mounts, 'mounts', mountOf);
  if (options.signal !== undefined && !(options.signal instanceof AbortSignal)) throw optionError('signal', 'an AbortSignal', options.signal);
  const detached = detachedOf(options.detached, [rootfs, ...mounts.map((mount) => ('source' in mount ? mount.source : undefined))]);
  if (detached && network) throw optionError('detached', 'false with ports or egress: they live in this process', detached);
  const capabilities = capabilitiesOf(options.capabilities, user);
  const noNewPrivileges = options.noNewPrivileges === undefined ? true : check.flag(options.noNewPrivileges, 'noNewPrivileges');
  const seccomp = seccompOf(options.seccomp, capabilities, !noNewPrivileges);
  if (detached && seccomp && seccomp.handlers.size > 0)
    throw optionError('seccomp.notify', 'nothing for a detached process: who decides lives here', options.seccomp);
  return {
    command,
    args: words,
    rootfs,
    image,
    readonly: options.readonly === undefined ? false : check.flag(options.readonly, 'readonly'),
    mounts: network?.egress && namespaces.mount === 'new' ? [...mounts, ...nameFiles(mounts, options.hostname, bridge !== undefined)] : mounts,
    cwd: options.cwd === undefined ? ofImage?.cwd : check.absolutePath(options.cwd, 'cwd'),
    env: envOf(options.env, user, ofImage?.env),
    homeOfUser: typeof user === 'string' && !Object.hasOwn(options.env ?? {}, 'HOME') && !Object.hasOwn(ofImage?.env ?? {}, 'HOME'),
    hostname: options.hostname === undefined ? undefined : hostnameOf(options.hostname, 'hostname'),
    domainname: options.domainname === undefined ? undefined : hostnameOf(options.domainname, 'domainname'),
    namespaces,
    idMap: options.idMap === undefined ? 'auto' : checkIdMap(options.idMap, 'idMap'),
    timeOffsets,
    bridge,
    network,
    cgroup: cgroupOf(options),
    cpuTimeLimit: options.cpuTimeLimit === undefined ? undefined : check.milliseconds(options.cpuTimeLimit, 'cpuTimeLimit'),
    user,
    capabilities,
    landlock: options.landlock === undefined ? undefined : checkLandlock(options.landlock),
    noNewPrivileges,
    apparmor: apparmorOf(options.apparmor),
    selinux: selinuxOf(options, namespaces),
    seccomp,
    speculation:
      options.speculation === undefined ? [] : check.list(options.speculation, 'speculation', (name, option) => check.oneOf(name, option, speculations)),
    coreScheduling: options.coreScheduling === undefined ? false : check.flag(options.coreScheduling, 'coreScheduling'),
    maskedPaths: options.maskedPaths === undefined ? defaultMaskedPaths : check.list(options.maskedPaths, 'maskedPaths', check.absolutePath),
    readonlyPaths: options.readonlyPaths === undefined ? defaultReadonlyPaths : check.list(options.readonlyPaths, 'readonlyPaths', check.absolutePath),
    rlimits: options.rlimits === undefined ? [] : rlimitsOf(options.rlimits),
    sysctl: options.sysctl === undefined ? [] : checkSysctl(options.sysctl, namespaces),
    umask: options.umask === undefined ? 0o022 : check.mode(options.umask, 'umask', 0o777),
    oomScoreAdj: options.oomScoreAdj === undefined ? undefined : check.integer(options.oomScoreAdj, 'oomScoreAdj', -1000, 1000),
    fallback: fallbackOf(options),
    stdio,
    tty,
    init,
    timeout: options.timeout === undefined ? undefined : check.milliseconds(options.timeout, 'timeout'),
    outputLimit,
    signal: options.signal,
    killSignal: options.killSignal === undefined ? (ofImage?.killSignal ?? 'SIGKILL') : check.signalName(options.killSignal, 'killSignal'),
    killGrace: options.killGrace === undefined ? 5000 : check.milliseconds(options.killGrace, 'killGrace'),
    detached,
  };
}

function fallbackOf({ fallback, noNewPrivileges }: SpawnOptions): Settings['fallback'] {
  const choice = fallback === undefined ? 'never' : check.oneOf(fallback, 'fallback', ['never', 'landlock'] as const);
  // Nothing else keeps a program from the rights that were given up (landlock_restrict_self wants it, too).
  if (choice !== 'never' && noNewPrivileges === false) throw optionError('noNewPrivileges', "true with fallback: 'landlock'", noNewPrivileges);
  return choice;
}

function cgroupOf({ cgroup, cpuTimeLimit }: SpawnOptions): Cgroup | Limits | undefined {
  if (cgroup instanceof Cgroup) return cgroup;
  if (cgroup === null || (cgroup !== undefined && typeof cgroup !== 'object')) throw optionError('cgroup', 'limits, or a Cgroup', cgroup);
  if (cgroup !== undefined) {
    const limits = checkLimits(cgroup, 'cgroup');
    // v1 would let the program in all the same, v2 refuse the clone.
    if (cgroup.pids === 0) throw optionError('cgroup.pids', 'at least 1: the program itself is a process', 0);
    return limits;
  }
  // Processor time is counted by a group: rusage has only what has been waited for.
  return cpuTimeLimit === undefined ? undefined : noLimits;
}

function detachedOf(value: unknown, roots: readonly unknown[]): boolean {
  const detached = value === undefined ? false : check.flag(value, 'detached');
  if (detached && roots.some((root) => root instanceof OverlayRootfs && root.driver === 'fuse-overlayfs')) {
    throw optionError('detached', 'false with a root of fuse-overlayfs: the program behind it ends with this process', value);
  }
  return detached;
}

function rootfsOf(value: unknown): OverlayRootfs | string | undefined {
  if (value === undefined || value instanceof OverlayRootfs) return value;
  if (typeof value === 'string' && isAbsolute(value) && !value.includes('\0')) return value;
  throw optionError('rootfs', 'an OverlayRootfs, an Image, or the absolute path of a directory', value);
}

function namespacesOf(options: SpawnOptions): Record<NamespaceType, NamespaceChoice> {
  const asked = options.namespaces === undefined ? {} : check.record(options.namespaces, 'namespaces');
  check.onlyKeys(asked, 'namespaces', namespaceTypes);
  const result = {} as Record<NamespaceType, NamespaceChoice>;
  for (const type of namespaceTypes) {
    const choice = asked[type];
    const fallback = type === 'time' && options.timeOffsets === undefined ? 'host' : 'new';
    if (choice instanceof Namespace) {
      if (choice.type !== type) throw optionError(`namespaces.${type}`, `a ${type} namespace`, choice);
      result[type] = choice;
    } else {
      if (choice !== undefined && choice !== 'new' && choice !== 'host')
        throw optionError(`namespaces.${type}`, `'new', 'host' or a ${type} namespace`, choice);
      result[type] = choice ?? fallback;
    }
  }
  const { network } = options;
  if (network !== undefined) {
    const meant: NamespaceChoice = network instanceof Namespace ? network : network === 'host' ? 'host' : 'new';
    if (asked['net'] !== undefined && asked['net'] !== meant) throw optionError('network', 'the same as namespaces.net, if both are given', network);
    result.net = meant;
  }
  return result;
}

function timeOffsetsOf(value: unknown): { monotonic: number; boottime: number } {
  const offsets = check.record(value, 'timeOffsets');
  check.onlyKeys(offsets, 'timeOffsets', ['monotonic', 'boottime']);
  const offset = (key: string): number => {
    const number = offsets[key] ?? 0;
    if (typeof number !== 'number' || !Number.isFinite(number)) throw optionError(`timeOffsets.${key}`, 'milliseconds, negative or positive', number);
    return number;
  };
  return { monotonic: offset('monotonic'), boottime: offset('boottime') };
}

function envOf(env: NodeJS.ProcessEnv | undefined, user: UserSetting | string, ofImage: Readonly<Record<string, string>> = {}): Record<string, string> {
  const result: Record<string, string> = {
    PATH: defaultPath,
    // Without reading the inside passwd for every spawn: root's home, or the root directory. That of a user by name is looked up.
    HOME: typeof user !== 'string' && user.uid === 0 ? '/root' : '/',
    TERM: 'xterm',
    LANG: 'C.UTF-8',
    ...ofImage,
  };
  if (env === undefined) return result;
  for (const [name, value] of Object.entries(check.record(env, 'env'))) {
    if (name === '' || name.includes('=') || name.includes('\0')) throw optionError('env', "names without '=' and NUL bytes", name);
    // As child_process: undefined takes a default away.
    if (value === undefined) delete result[name];
    else result[name] = check.text(typeof value === 'string' ? value : String(value), `env.${name}`);
  }
  return result;
}

function hostnameOf(value: unknown, option: string): string {
  // sethostname(2): at most 64 bytes.
  if (typeof value !== 'string' || !/^[A-Za-z0-9_.-]{1,64}$/.test(value))
    throw optionError(option, 'at most 64 letters, digits, dots, dashes or underscores', value);
  return value;
}
