// Settings → plan: the order of everything that happens between the clone and execve.

import { addGroup, delegateGroup, enterGroup } from '../cgroup/make.js';
import { caller } from '../host/caller.js';
import { namespaceFlags, namespaceTypes } from '../namespace/flags.js';
import type { NamespaceType } from '../namespace/types.js';
import { checked, native } from '../native.js';
import { intercept } from '../network/egress/interception.js';
import { bringUpLoopback } from '../network/loopback.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import * as structs from '../plan/structs.js';
import { mountDev, openTerminal } from '../rootfs/devices.js';
import { cloneMount, openDirectory } from '../rootfs/filesystem.js';
import { type HostRoot, ordinaryHostRoot } from '../rootfs/host-root.js';
import { maskPaths, mountProc, mountSys, readonlyPaths } from '../rootfs/kernel-filesystems.js';
import { mountAbilities } from '../rootfs/mount-abilities.js';
import { layer, overlay, tmpfsUpper } from '../rootfs/overlay.js';
import { defaultRoot, defaultUpperSize, type Ready } from '../rootfs/ready.js';
import { attachRoot, makePrivate, makeReadonly, pivot, type RootMount } from '../rootfs/root-mount.js';
import type { RootUse } from '../rootfs/shared-root.js';
import { beginMaking, copyStored } from '../rootfs/stage.js';
import { changeProfile, openProfile } from '../security/apparmor.js';
import { hostProc } from '../security/host-proc.js';
import { type Ids, idTexts, outside, rootOutside } from '../security/id-map.js';
import type { Ruleset } from '../security/landlock/ruleset.js';
import { addRuleset } from '../security/landlock/steps.js';
import type { Filters } from '../security/seccomp/filters.js';
import { restrictSpeculation, shareNoCore } from '../security/speculation.js';
import { writeTimeOffsets } from '../security/time-offsets.js';
import { awaitNetwork, handOutNetwork, type NetworkChannel } from './bridge-network.js';
import { giveUpPrivileges } from './fallback.js';
import { filterCalls } from './filter-calls.js';
import { joinNamespaces, ownerOf } from './join.js';
import type { MountSetting } from './mount-settings.js';
import { addMounts } from './mounts.js';
import type { UserSetting } from './privilege-settings.js';
import { becomeRoot, dieWithParent, dropPrivileges, enterIds, resetSignals } from './privileges.js';
import type { ProcessGroup } from './process-group.js';
import { connectStreams, enterDirectory, execute, limit, nameHost, writeSysctls } from './program.js';
import type { Settings } from './settings.js';

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
  readonly group: ProcessGroup | undefined;
  /** Takes the sockets that egress is decided at. */
  readonly egressChannel: number | undefined;
  /** Of a network that is connected while the child waits. */
  readonly channel: NetworkChannel | undefined;
  readonly landlock: Ruleset | undefined;
  /** The AppArmor profile to change to. */
  readonly apparmor: string | undefined;
  /** There are no namespaces to be had. */
  readonly isFallback: boolean;
  readonly filters: Filters | undefined;
  /** A socket for the listener of a filter that asks. */
  readonly callChannel: number | undefined;
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
  const egress = context.egressChannel === undefined ? undefined : plan.slot('egress channel', context.egressChannel);
  const init = context.init && {
    program: plan.slot('init', context.init.program),
    status: plan.slot('status', context.init.status),
    socket: plan.slot('pidfd socket', context.init.pidfdSocket),
  };
  const calls = context.callChannel === undefined ? undefined : plan.slot('listener channel', context.callChannel);
  const network = context.channel && { socket: plan.slot('network socket', context.channel.socket), sent: plan.slot('network sent', context.channel.sent) };
  const borrow = (name: string, fd: number): Slot => plan.slot(name, checked(native().duplicate(fd, 64), 'fcntl', 'borrow a descriptor'));

  const { apparmor } = context;
  const labels = apparmor !== undefined || settings.selinux?.process !== undefined ? borrow('/proc of the host', hostProc()) : undefined;
  plan.mountLabel = settings.selinux?.mount;
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
    // Made by the child, once it is in its group: that is then the root of what it sees (copy_cgroup_ns).
    if (type === 'cgroup' && context.group) continue;
    if (namespaces[type] === 'new' && (type !== 'user' || newUser)) plan.cloneFlags |= namespaceFlags[type];
  }
  plan.reportSlot = plan.slot('report pipe');

  const enterCgroup = context.group && prepareGroup(plan, settings, context, context.group);
  const ownsMounts = namespaces.mount === 'new';
  const privileged = who.privileged && owner.mount === undefined;
  // Where mounts have to be attached to be made or copied, a joiner does that, before it enters what takes its rights away.
  const inJoiner = privileged && ownsMounts && !mountAbilities().detached;
  const join = (): Slot | undefined =>
    joinNamespaces(plan.in('join'), settings, owner, borrow, who.privileged && kinds.user !== 'host' && namespaces.mount === 'new');
  let proc: Slot | undefined;
  if (inJoiner) beginMaking(plan);
  else proc = join();
  const setup = inJoiner || (plan.joinFlags >= 0 && owner.mount !== undefined) ? 'join' : 'parent';
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
      made.push(...copyStored(plan, context.rootUse, borrow));
      missing = context.rootUse.missing;
    } else if (privileged) {
      const ownerIds = context.ids && rootOutside(context.ids.map);
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
        group: context.group?.places ?? [],
        hostPid: namespaces.pid === 'host',
        newNet: namespaces.net === 'new',
      })
    : undefined;

  if (inJoiner) proc = join();
  plan.in('child');
  resetSignals(plan, who.ignoredSignals);
  dieWithParent(plan, settings);
  // First: a change of ids makes /proc/self/* root's (dumpable), and root inside is not that one.
  if (settings.timeOffsets) writeTimeOffsets(plan, settings.timeOffsets);
  if (newUser && context.ids) becomeRoot(plan, context.ids, settings);
  else if (kinds.user === 'joined') enterIds(plan);
  if (network) handOutNetwork(plan, network.socket, network.sent);
  enterCgroup?.();
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
    // What all roots share has no label of its own.
    const kit = privileged && context.hostRoot?.kit && plan.mountLabel === undefined ? borrow('kit', context.hostRoot.kit.fd) : undefined;
    const dev = kit && plan.in('parent') && cloneKit(plan, kit, 'dev', usernsFd);
    plan.in('child');
    pts = mountDev(plan, root, dev, namespaces.ipc === 'new');
    mounts?.(root);
    maskPaths(plan, root, settings.maskedPaths, kit);
    writeSysctls(plan, root, settings.sysctl);
    readonlyPaths(plan, root, settings.readonlyPaths);
    if (settings.readonly) makeReadonly(plan, root);
  }
  if (settings.tty && !pts) pts = openDirectory(plan.label('open the terminal', '/dev'), cwd, '/dev');
  if (namespaces.net === 'new' && !plan.netSlot) bringUpLoopback(plan);
  if (egress) intercept(plan, egress, settings.bridge?.bridge.subnets);
  if (network) awaitNetwork(plan, network.socket);
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
  connectStreams(plan, settings, stdio, terminal, context.user, init, calls, labels);
  const profile = apparmor !== undefined && labels ? openProfile(plan, labels, apparmor) : undefined;
  const confine = profile && ((): void => changeProfile(plan, profile, apparmor as string));
  enterDirectory(plan, settings.cwd ?? '/');
  restrictSpeculation(plan, settings.speculation);
  if (settings.coreScheduling) shareNoCore(plan);
  const restrict = context.landlock && addRuleset(plan, context.landlock);
  limit(plan, settings);
  // EPERM is a filter around us: whatever we start is under it, too.
  plan.label('leave the session keyring of the host').add('keyctl', [k.KEYCTL_JOIN_SESSION_KEYRING, null, 0, 0, 0], { tolerate: [k.ENOSYS, k.EPERM] });
  // By CAP_SYS_ADMIN, which goes with the privileges, where it is not by no_new_privs.
  if (!settings.noNewPrivileges) restrict?.();
  const { filters } = context;
  const filter = filters && ((): void => filterCalls(plan, filters, calls));
  if (settings.capabilities === 'caller') dieWithParent(plan, settings);
  else if (context.isFallback) giveUpPrivileges(plan, settings, context.user, confine);
  else dropPrivileges(plan, settings, context.user, kinds.user, filter, confine);
  if (settings.noNewPrivileges) restrict?.();
  plan.label('unblock signals').add('rt_sigprocmask', [k.SIG_SETMASK, structs.noSignals, 0, 8]);
  if (settings.noNewPrivileges) filter?.();
  execute(plan, settings, init?.program);
  if (context.ids && newUser && context.ids.writer !== 'child') plan.idMap = idTexts(context.ids);
  plan.oomScoreAdj = settings.oomScoreAdj;
  // Both a score and the death of a group that is out of memory meet all who share memory, us included, unless one waits in a vfork.
  const mustNotMeetUs = settings.oomScoreAdj !== undefined || (context.group?.mayRunOutOfMemory ?? false);
  // Nobody does for what a joiner makes: then that does not share ours.
  if (mustNotMeetUs && plan.joinFlags >= 0) plan.ownMemory = true;
  else plan.vfork = mustNotMeetUs;
  return { namespaces: kinds, missing };
}

/** Makes the group, if it is the spawn's own, before the clone; returns the child's part of entering it. */
function prepareGroup(plan: PlanBuilder, settings: Settings, { ids, user }: Context, { places, recipe, movesItself }: ProcessGroup): () => void {
  plan.in('parent');
  if (recipe) addGroup(plan, recipe);
  // Who has it mounted inside is to make groups of its own there.
  if (recipe && ids?.writer === 'parent' && settings.mounts.some(({ type }) => type === 'cgroup')) {
    const owner = rootOutside(ids.map);
    delegateGroup(plan, places, { uid: outside(ids.map.uids, user.uid) ?? owner.uid, gid: outside(ids.map.gids, user.gid) ?? owner.gid });
  }
  const enter = enterGroup(plan, places, movesItself);
  return () => {
    enter();
    if (settings.namespaces.cgroup === 'new') plan.label('make a cgroup namespace').add('unshare', [k.CLONE_NEWCGROUP]);
  };
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
  const space = tmpfsUpper(plan, 2 ** 20, owner);
  plan.label('use a directory as root', path);
  const lower = ordinary ? openDirectory(plan, cwd, path) : layer(plan, space.stage, path, userns);
  const mount = overlay(plan, space, { lowers: [lower], userxattr: ordinary, volatile: false });
  space.stage.clear();
  return { target: '/', mount };
}

function cloneKit(plan: PlanBuilder, kit: Slot, part: string, userns: number | undefined): Slot {
  plan.label('copy what all roots share', `/${part}`);
  return cloneMount(plan, kit, part, { userns });
}
