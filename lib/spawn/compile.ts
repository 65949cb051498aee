// Settings → plan: the order of everything that happens between the clone and execve.

import { IsolationError } from '../errors.js';
import { caller } from '../host/caller.js';
import { ownUserNamespace } from '../namespace/create.js';
import { namespaceFlags, namespaceTypes } from '../namespace/flags.js';
import { Namespace } from '../namespace/namespace.js';
import type { IdMap, NamespaceType } from '../namespace/types.js';
import { checked, native } from '../native.js';
import { bringUpLoopback } from '../network/loopback.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import * as structs from '../plan/structs.js';
import { mountDev, openTerminal } from '../rootfs/devices.js';
import { cloneMount, newFilesystem, openDirectory } from '../rootfs/filesystem.js';
import { type HostRoot, ordinaryHostRoot } from '../rootfs/host-root.js';
import { maskPaths, mountProc, mountSys, newProc, readonlyPaths } from '../rootfs/kernel-filesystems.js';
import { overlay, tmpfsUpper } from '../rootfs/overlay.js';
import type { RootUse } from '../rootfs/overlay-rootfs.js';
import { defaultRoot, defaultUpperSize, type Ready } from '../rootfs/ready.js';
import { attachRoot, makePrivate, makeReadonly, pivot, type RootMount } from '../rootfs/root-mount.js';
import { type Ids, idTexts, outside, rootOutside } from '../security/id-map.js';
import { writeOwnIdMap } from '../security/own-id-map.js';
import { writeTimeOffsets } from '../security/time-offsets.js';
import { addMounts } from './mounts.js';
import type { MountSetting, Settings, UserSetting } from './settings.js';

/** What a plan needs that had to be found or made before. Descriptors in `stdio` and `tty` are the plan's; the rest is borrowed. */
export interface Context {
  /** Of the user namespace that is made, or entered. */
  readonly ids: Ids | undefined;
  readonly user: UserSetting;
  /** Roots that are borrowed: the spawn's own, and those of its overlay mounts. */
  readonly rootUse: RootUse | undefined;
  readonly overlayUses: readonly RootUse[];
  /** User namespaces of the binds that have an id map of their own. */
  readonly bindUserns: ReadonlyMap<MountSetting, number>;
  readonly hostRoot: HostRoot | undefined;
  /** Its descriptors are the plan's. */
  readonly ready: Ready | undefined;
  /** The program's descriptors 0, 1, …; all numbers are above those. */
  readonly stdio: readonly number[];
  /** A socket for the terminal's master. */
  readonly terminalChannel: number | undefined;
  /** As it was last asked for. */
  readonly terminalSize: { readonly columns: number; readonly rows: number } | undefined;
  readonly init: { readonly program: number; readonly status: number; readonly pidfdSocket: number } | undefined;
}

export interface Compiled {
  readonly namespaces: Readonly<Record<NamespaceType, 'new' | 'host' | 'joined'>>;
  readonly missing: readonly string[];
}

/** Adds all steps. If it throws, what the plan has been given is the caller's to close. */
export function compile(plan: PlanBuilder, settings: Settings, context: Context): Compiled {
  const { namespaces } = settings;
  // Never 0, which means a plan without a child.
  plan.cloneFlags = k.CLONE_PIDFD;
  const who = caller();
  // Given descriptors first: they are the plan's even if what follows throws.
  const stdio = context.stdio.map((fd, index) => plan.slot(`descriptor ${index}`, fd));
  const channel = context.terminalChannel === undefined ? undefined : plan.slot('terminal channel', context.terminalChannel);
  const init = context.init && {
    program: plan.slot('init', context.init.program),
    status: plan.slot('status', context.init.status),
    socket: plan.slot('pidfd socket', context.init.pidfdSocket),
  };
  const borrow = (name: string, fd: number): Slot => plan.slot(name, checked(native().duplicate(fd, 64), 'fcntl', 'borrow a descriptor'));

  const owner = ownerOf(settings, context);
  const kinds = Object.fromEntries(
    namespaceTypes.map((type) => {
      const choice = namespaces[type];
      if (type === 'user' && owner.user !== undefined) return [type, choice === 'new' && owner.own ? 'new' : 'joined'];
      return [type, choice === 'new' || choice === 'host' ? choice : 'joined'];
    }),
  ) as Compiled['namespaces'];
  const newUser = kinds.user === 'new' && owner.user === undefined;
  const sysfs = context.ready && plan.slot('ready sysfs', context.ready.sysfs);
  plan.netSlot = context.ready && plan.slot('ready network namespace', context.ready.net);
  for (const type of namespaceTypes) {
    if (type === 'net' && plan.netSlot) continue;
    if (namespaces[type] === 'new' && (type !== 'user' || newUser)) plan.cloneFlags |= namespaceFlags[type];
  }
  plan.reportSlot = plan.slot('report pipe');

  plan.in('join');
  const proc = joinNamespaces(plan, settings, owner, borrow, who.privileged && kinds.user !== 'host' && namespaces.mount === 'new');
  const ownsMounts = namespaces.mount === 'new';
  const setup = plan.joinFlags >= 0 && owner.mount !== undefined ? 'join' : 'parent';
  const privileged = who.privileged && owner.mount === undefined;
  if (owner.mount !== undefined && plan.joinFlags < 0) throw new Error('unreachable: an owner without a joiner');

  // Detached mounts that are made ahead of the clone, by whoever may: us, or a joiner.
  const made: RootMount[] = [];
  let missing: readonly string[] = [];
  const userns = context.ids?.userns;
  const usernsSlot = userns !== undefined && kinds.user !== 'host' && ownsMounts ? borrow('user namespace', userns) : undefined;
  const usernsFd = usernsSlot === undefined ? undefined : plan.given(usernsSlot);
  if (ownsMounts) {
    plan.in(setup);
    if (context.rootUse) {
      for (const { target, fd } of context.rootUse.mounts) {
        plan.label(target === '/' ? 'copy the root' : 'copy a part of the root', target);
        made.push({
          target,
          mount: plan.open(`copy of ${target}`, 'open_tree', [
            borrow(`root ${target}`, fd),
            '',
            k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_RECURSIVE | k.AT_EMPTY_PATH,
          ]),
        });
      }
      missing = context.rootUse.missing;
    } else if (privileged) {
      const ownerIds = context.ids && rootOutside(context.ids.map);
      plan.in('parent');
      if (typeof settings.rootfs === 'string') made.push(directoryRoot(plan, settings.rootfs, settings.readonly, usernsFd, ownerIds));
      else if (context.hostRoot) {
        if (context.ready) for (const { target, fd } of context.ready.mounts) made.push({ target, mount: plan.slot(`ready root ${target}`, fd) });
        else made.push(...defaultRoot(plan, context.hostRoot, context.ids, usernsFd));
        missing = context.hostRoot.missing;
      }
    }
  }
  const mounts = ownsMounts
    ? addMounts(plan, settings.mounts, {
        privileged,
        setup,
        userns: usernsFd,
        bindUserns: context.bindUserns,
        uses: context.overlayUses,
        borrow,
        hostPid: namespaces.pid === 'host',
        newNet: namespaces.net === 'new',
      })
    : undefined;

  plan.in('child');
  resetSignals(plan, who.ignoredSignals);
  dieWithParent(plan, settings);
  // First: a change of ids makes /proc/self/* root's (dumpable), and root inside is not that one.
  if (settings.timeOffsets) writeTimeOffsets(plan, settings.timeOffsets);
  if (newUser && context.ids) becomeRoot(plan, context.ids);
  else if (kinds.user === 'joined') enterIds(plan);
  dieWithParent(plan, settings);

  let pts: Slot | undefined;
  let root: Slot | undefined;
  if (ownsMounts) {
    makePrivate(plan);
    if (made.length === 0) {
      if (typeof settings.rootfs === 'string') made.push(directoryRoot(plan, settings.rootfs, settings.readonly, undefined, undefined));
      else if (context.hostRoot) {
        const built = ordinaryHostRoot(plan, context.hostRoot, tmpfsUpper(plan, defaultUpperSize, undefined));
        made.push(...built.mounts);
        missing = built.missing;
      }
    }
    root = attachRoot(plan, made);
    mountProc(plan, root, '/proc', proc ?? (namespaces.pid === 'host' ? 'host' : 'new'));
    mountSys(plan, root, '/sys', namespaces.net === 'new' ? (sysfs ?? 'new') : 'host');
    const kit = privileged && context.hostRoot?.kit ? borrow('kit', context.hostRoot.kit.fd) : undefined;
    const dev = kit && plan.in('parent') && cloneKit(plan, kit, 'dev', usernsFd);
    plan.in('child');
    pts = mountDev(plan, root, dev, namespaces.ipc === 'new');
    mounts?.(root);
    plan.label('make an empty directory for masks');
    if (kit) maskPaths(plan, root, settings.maskedPaths, kit, 'blank', 'dev/null');
    else maskPaths(plan, root, settings.maskedPaths, newFilesystem(plan, 'tmpfs', { mode: '0555' }, k.MOUNT_ATTR_RDONLY), '', undefined);
    writeSysctls(plan, root, settings.sysctl);
    readonlyPaths(plan, root, settings.readonlyPaths);
    if (settings.readonly) makeReadonly(plan, root);
  }
  if (namespaces.net === 'new' && !plan.netSlot) bringUpLoopback(plan);
  nameHost(plan, settings);
  const terminal =
    settings.tty && channel && pts
      ? openTerminal(
          plan,
          pts,
          channel,
          structs.windowSize(context.terminalSize?.columns ?? settings.tty.columns, context.terminalSize?.rows ?? settings.tty.rows),
        )
      : undefined;
  if (root) pivot(plan);
  connectStreams(plan, settings, stdio, terminal, context.user, init);
  enterDirectory(plan, settings.cwd ?? '/');
  limit(plan, settings);
  plan.label('leave the session keyring of the host').add('keyctl', [k.KEYCTL_JOIN_SESSION_KEYRING, null, 0, 0, 0], { tolerate: [k.ENOSYS] });
  if (settings.capabilities === 'caller') dieWithParent(plan, settings);
  else dropPrivileges(plan, settings, context.user, kinds.user);
  plan.label('unblock signals').add('rt_sigprocmask', [k.SIG_SETMASK, structs.noSignals, 0, 8]);
  execute(plan, settings, init?.program);
  if (context.ids && newUser && context.ids.writer !== 'child') plan.idMap = idTexts(context.ids);
  plan.oomScoreAdj = settings.oomScoreAdj;
  return { namespaces: kinds, missing };
}

interface Owner {
  readonly user: number | undefined;
  readonly mount: number | undefined;
  /** The namespaces are those of a root of ours: the ids are new, as far as the caller can tell. */
  readonly own: boolean;
  /** A descriptor opened here, to be given to the plan. */
  readonly opened: boolean;
}

/**
 * Whose user namespace the child enters instead of getting a new one: the one that was asked for, the one that owns a borrowed
 * root's mounts, or, for an ordinary user, the one that owns a namespace to be joined, as nobody else may join it.
 */
function ownerOf(settings: Settings, context: Context): Owner {
  const owners = [context.rootUse, ...context.overlayUses].flatMap((use) => (use?.owner ? [use.owner] : []));
  const [first] = owners;
  if (owners.some((other) => other !== first)) {
    throw new IsolationError('ERR_CLOISTER_ROOTFS', 'these OverlayRootfs have different owners, and a process can only be in one user namespace', {
      step: 'enter the user namespace of a root',
      hint: 'Give them the same idMap.',
    });
  }
  const { user } = settings.namespaces;
  if (user instanceof Namespace && user.id !== ownUserNamespace()) return { user: user.fd, mount: undefined, own: false, opened: false };
  if (first) return { user: first.user, mount: first.mount, own: true, opened: false };
  if (user === 'new' && !caller().privileged) {
    for (const type of namespaceTypes) {
      const choice = settings.namespaces[type];
      if (!(choice instanceof Namespace)) continue;
      const fd = native().namespaceOwner(choice.fd);
      if (fd >= 0) return { user: fd, mount: undefined, own: false, opened: true };
    }
  }
  return { user: undefined, mount: undefined, own: false, opened: false };
}

/** With `mountsProc`, /proc of a pid namespace that is joined: who is in another user namespace than its owner could not mount it. */
function joinNamespaces(
  plan: PlanBuilder,
  settings: Settings,
  owner: Owner,
  borrow: (name: string, fd: number) => Slot,
  mountsProc: boolean,
): Slot | undefined {
  const joined = namespaceTypes.flatMap((type) => {
    const choice = settings.namespaces[type];
    return choice instanceof Namespace && type !== 'user' ? [{ type, fd: choice.fd }] : [];
  });
  if (owner.user === undefined && joined.length === 0) return undefined;
  plan.joinFlags = 0;
  // Whoever is in that user or pid namespace already could open our memory, if the joiner shared it with Node: proc_pid_mem(5). It
  // has a copy instead, which nobody may look into; to make Node itself unreadable would fail other spawns meanwhile.
  if (owner.user !== undefined || joined.some(({ type }) => type === 'pid')) {
    plan.ownMemory = true;
    plan.label('become unreadable').add('prctl', [k.PR_SET_DUMPABLE, 0, 0, 0, 0]);
  }
  const joinUser = (): void => {
    if (owner.user === undefined) return;
    const slot = owner.opened ? plan.slot('user namespace', owner.user) : borrow('user namespace', owner.user);
    plan.label('join the user namespace').add('setns', [slot, k.CLONE_NEWUSER]);
  };
  // An ordinary user has rights over the others only inside; root has them here, also over those that this user namespace does not own.
  const userFirst = !caller().privileged || owner.mount !== undefined;
  if (userFirst) joinUser();
  if (owner.mount !== undefined) plan.label('join the mount namespace of the root').add('setns', [borrow('mount namespace', owner.mount), k.CLONE_NEWNS]);
  let proc: Slot | undefined;
  // The mount namespace last: it changes what paths mean.
  for (const { type, fd } of joined.sort((a, b) => Number(a.type === 'mount') - Number(b.type === 'mount'))) {
    const slot = borrow(`${type} namespace`, fd);
    plan.label(`join the ${type} namespace`).add('setns', [slot, namespaceFlags[type]]);
    // timens_install refuses whoever shares memory.
    if (type === 'time') plan.ownMemory = true;
    if (type === 'pid' && mountsProc) proc = newProc(plan.label('mount /proc', '/proc'), slot);
  }
  if (!userFirst) joinUser();
  return proc;
}

function directoryRoot(
  plan: PlanBuilder,
  path: string,
  readonly: boolean,
  userns: number | undefined,
  owner: { uid: number; gid: number } | undefined,
): RootMount {
  plan.label('use a directory as root', path);
  const ordinary = plan.section === 'child';
  if (!readonly) return { target: '/', mount: cloneMount(plan, cwd, path, { recursive: true, userns, attributes: k.MOUNT_ATTR_NODEV }) };
  // Mount points that are missing are made in a layer of our own, and not in the caller's directory.
  const lower = ordinary ? openDirectory(plan, cwd, path) : cloneMount(plan, cwd, path, { userns });
  const space = tmpfsUpper(plan, 2 ** 20, owner);
  plan.label('use a directory as root', path);
  return { target: '/', mount: overlay(plan, space, { lowers: [lower], userxattr: ordinary, volatile: false }) };
}

function cloneKit(plan: PlanBuilder, kit: Slot, part: string, userns: number | undefined): Slot {
  plan.label('copy what all roots share', `/${part}`);
  return cloneMount(plan, kit, part, { userns });
}

/** CLONE_CLEAR_SIGHAND leaves ignored signals ignored; a program expects none to be (signal(7), execve(2)). */
function resetSignals(plan: PlanBuilder, ignored: readonly number[]): void {
  plan.label('reset ignored signals');
  for (const signal of ignored) plan.add('rt_sigaction', [signal, structs.defaultSignalAction, 0, 8]);
}

/** Again after each change of credentials, which clears it: prctl(2), PR_SET_PDEATHSIG. */
function dieWithParent(plan: PlanBuilder, { detached }: Settings): void {
  if (detached) return;
  plan.label('die with the parent').add('prctl', [k.PR_SET_PDEATHSIG, k.SIGKILL, 0, 0, 0]);
  plan.add('expect_alive', []);
}

/**
 * A name inside may be a link to a descriptor (/proc/self/fd/9), and lead out of the root (CVE-2024-21626): such links are refused,
 * and no descriptor but the program's own is open any more.
 */
function enterDirectory(plan: PlanBuilder, path: string): void {
  plan.label('enter the working directory', path);
  const directory = plan.open('working directory', 'openat2', [cwd, path, structs.openHow(k.O_PATH | k.O_DIRECTORY | k.O_CLOEXEC, k.RESOLVE_NO_MAGICLINKS)]);
  plan.add('fchdir', [directory]);
}

function becomeRoot(plan: PlanBuilder, ids: Ids): void {
  if (ids.writer === 'child') {
    writeOwnIdMap(plan, ids.map);
    const root = { uid: ids.map.uids[0]?.inside ?? 0, gid: ids.map.gids[0]?.inside ?? 0 };
    plan.label('become root inside').add('setresgid', [root.gid, root.gid, root.gid]);
    plan.add('setresuid', [root.uid, root.uid, root.uid]);
    return;
  }
  plan.label('wait for the id maps').add('await_ids', []);
  plan.label('become root inside').add('setgroups', [0, null]);
  const root = firstIds(ids.map);
  plan.add('setresgid', [root.gid, root.gid, root.gid]);
  plan.add('setresuid', [root.uid, root.uid, root.uid]);
}

/** 0, or the first that is mapped: files that are made while the root is put together need an owner with a name. */
function firstIds(map: IdMap): { uid: number; gid: number } {
  const first = (ranges: IdMap['uids']): number => (outside(ranges, 0) === undefined ? (ranges[0]?.inside ?? 0) : 0);
  return { uid: first(map.uids), gid: first(map.gids) };
}

function enterIds(plan: PlanBuilder): void {
  // EINVAL: that namespace has no root. EPERM: it was made by an ordinary user, and setgroups given up.
  plan.label('become root inside').add('setgroups', [0, null], { tolerate: [k.EPERM, k.EINVAL] });
  plan.add('setresgid', [0, 0, 0], { tolerate: [k.EINVAL] });
  plan.add('setresuid', [0, 0, 0], { tolerate: [k.EINVAL] });
}

function nameHost(plan: PlanBuilder, { hostname, domainname, namespaces }: Settings): void {
  if (namespaces.uts !== 'new') return;
  plan.label('set the host name').add('sethostname', [Buffer.from(hostname ?? 'cloister')]);
  if (domainname !== undefined) plan.label('set the domain name').add('setdomainname', [Buffer.from(domainname)]);
}

function writeSysctls(plan: PlanBuilder, root: Slot, sysctls: Settings['sysctl']): void {
  const file = sysctls.length > 0 ? plan.slot('sysctl') : undefined;
  for (const [path, value] of sysctls) {
    plan.label('set a sysctl', `/proc/sys/${path}`);
    const how = structs.openHow(k.O_WRONLY | k.O_CLOEXEC, k.RESOLVE_IN_ROOT | k.RESOLVE_NO_SYMLINKS);
    plan.add('openat2', [root, `proc/sys/${path}`, how], { out: file });
    plan.add('write', [file as Slot, Buffer.from(value)]);
    plan.release(file as Slot);
  }
}

function limit(plan: PlanBuilder, { rlimits, umask }: Settings): void {
  for (const { number, name, soft, hard } of rlimits) {
    plan.label('set a resource limit', `RLIMIT_${name.toUpperCase()}`).add('prlimit64', [0, number, structs.resourceLimit(soft, hard)]);
  }
  plan.label('set the umask').add('umask', [umask]);
}

function connectStreams(
  plan: PlanBuilder,
  settings: Settings,
  stdio: readonly Slot[],
  terminal: Slot | undefined,
  user: UserSetting,
  init: { program: Slot; status: Slot; socket: Slot } | undefined,
): void {
  if (terminal) {
    // So that the program can open its terminal by name once more.
    plan.label('connect the terminal').add('fchownat', [terminal, '', user.uid, user.gid, k.AT_EMPTY_PATH]);
  }
  plan.label('connect the streams');
  for (const index of settings.stdio.keys()) plan.add('dup3', [terminal && index < 3 ? terminal : (stdio[index] as Slot), index, 0]);
  let next = settings.stdio.length;
  if (init) {
    plan.add('dup3', [init.status, next++, 0]);
    plan.add('dup3', [init.socket, next++, 0]);
    plan.add('dup3', [init.program, next, k.O_CLOEXEC], { out: init.program });
    next++;
  }
  // A session of its own: no terminal of ours to push input into (CVE-2017-5226). With init, it is the program that has one.
  if (!init) {
    plan.label('begin a session').add('setsid', []);
    if (terminal) plan.add('ioctl_number', [terminal, k.TIOCSCTTY, 0]);
  }
  plan.label('close all other descriptors').add('dup3', [plan.reportSlot as Slot, next++, k.O_CLOEXEC]);
  // Really closed and not only at exec, which may be led to one of them by a link: /proc/self/fd/9 as a program or directory.
  plan.add('close_range', [next, 0xffffffff, 0]);
}

function dropPrivileges(plan: PlanBuilder, settings: Settings, user: UserSetting, userNamespace: 'new' | 'host' | 'joined'): void {
  const sets = settings.capabilities;
  if (sets === 'caller') return;
  plan.label('drop capabilities');
  // Inside a user namespace every process begins with all of them; a caller without a new one has those it has.
  plan.add('drop_bounding', [Number(sets.bounding), caller().lastCapability]);
  if (user.uid !== 0) plan.add('prctl', [k.PR_SET_KEEPCAPS, 1, 0, 0, 0]);
  plan.label('become the user', `${user.uid}:${user.gid}`);
  // In a new user namespace it is 0:0 already, without groups.
  const hostUser = userNamespace === 'host';
  const isNew = userNamespace === 'new';
  if (hostUser || user.groups.length > 0) plan.add('setgroups', [user.groups.length, user.groups.length === 0 ? null : structs.groupList(user.groups)]);
  if (!isNew || user.gid !== 0) plan.add('setresgid', [user.gid, user.gid, user.gid]);
  if (!isNew || user.uid !== 0) plan.add('setresuid', [user.uid, user.uid, user.uid]);
  plan.label('drop capabilities');
  plan.add('capset', [structs.capabilityHeader(), structs.capabilityData(sets.effective, sets.permitted, sets.inheritable)]);
  // A new user namespace begins without ambient capabilities (create_user_ns).
  if (hostUser) plan.add('prctl', [k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0]);
  for (let number = 0; number <= caller().lastCapability; number++) {
    if ((sets.ambient >> BigInt(number)) & 1n) plan.add('prctl', [k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_RAISE, number, 0, 0]);
  }
  if (settings.noNewPrivileges) plan.label('set no_new_privs').add('prctl', [k.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]);
  if (!isNew || user.uid !== 0 || user.gid !== 0) dieWithParent(plan, settings);
}

/** Where execvp(3) would look for the program. */
export function candidates({ command, env }: Settings): string[] {
  if (command.includes('/')) return [command];
  const path = env['PATH'] ?? '/bin:/usr/bin';
  return path.split(':').map((directory) => (directory === '' ? command : `${directory}/${command}`));
}

function execute(plan: PlanBuilder, settings: Settings, init: Slot | undefined): void {
  const paths = candidates(settings);
  const argv = [settings.command, ...settings.args];
  const environment = Object.entries(settings.env).map(([name, value]) => `${name}=${value}`);
  plan.label('execute the program', settings.command);
  if (!init) {
    plan.add('exec', [paths, argv, environment]);
    return;
  }
  plan.label('execute init');
  const count = settings.stdio.length;
  const words = ['cloister-init', String(count), String(count + 1), settings.tty ? '1' : '0', String(paths.length), ...paths, ...argv];
  plan.add('execveat', [init, '', words, environment, k.AT_EMPTY_PATH]);
}
