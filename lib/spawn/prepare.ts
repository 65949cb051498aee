import { Cgroup } from '../cgroup/cgroup.js';
import { CgroupError } from '../errors.js';
import { caller } from '../host/caller.js';
import type { IdMap, NamespaceType } from '../namespace/types.js';
import { checked, native } from '../native.js';
import { ProcessNetwork } from '../network/process-network.js';
import { PlanBuilder } from '../plan/builder.js';
import { type HostRoot, hostRoot } from '../rootfs/host-root.js';
import { mountAbilities, tryMounts } from '../rootfs/mount-abilities.js';
import { OverlayRootfs } from '../rootfs/overlay-rootfs.js';
import { descriptorsOf, enter, type Ready, takeReady } from '../rootfs/ready.js';
import type { RootUse } from '../rootfs/shared-root.js';
import { profileToEnter } from '../security/apparmor.js';
import { userNamespaceOfBind } from '../security/bind-ids.js';
import { hostIds, type Ids } from '../security/id-map.js';
import { landlockAbi } from '../security/landlock/ability.js';
import { type Ruleset, rulesetFor } from '../security/landlock/ruleset.js';
import { type Filters, filtersOf } from '../security/seccomp/filters.js';
import { checkLabels } from '../security/selinux.js';
import { BridgeNetwork } from './bridge-network.js';
import { openChannel, own, ownPipes } from './child-descriptors.js';
import { type Context, compile } from './compile.js';
import { type Fallback, fallbackOf } from './fallback.js';
import type { InitPipes } from './init-channel.js';
import { needsInit, openInit } from './init-program.js';
import { lookUpUser } from './inside-user.js';
import type { MountSetting } from './mount-settings.js';
import type { UserSetting } from './privilege-settings.js';
import { ProcessGroup } from './process-group.js';
import type { Settings } from './settings.js';
import { checkUser, chooseIds, joinedIds } from './spawn-ids.js';
import type { Streams } from './streams.js';

/** A compiled plan with all that it borrows, until `release`. */
export interface Prepared {
  readonly plan: PlanBuilder;
  /** What was asked for, or what came of it. */
  readonly settings: Settings;
  readonly fallback: Fallback | undefined;
  readonly namespaces: Readonly<Record<NamespaceType, 'new' | 'host' | 'joined'>>;
  readonly idMap: IdMap | undefined;
  readonly driver: string;
  readonly missing: readonly string[];
  readonly init: InitPipes | undefined;
  readonly group: ProcessGroup | undefined;
  readonly bridge: BridgeNetwork | undefined;
  readonly landlock: Ruleset | undefined;
  readonly apparmor: string | undefined;
  readonly network: ProcessNetwork | undefined;
  readonly filters: Filters | undefined;
  /** Our end of where the listener of a filter that asks will come from. */
  readonly callChannel: number | undefined;
  readonly execStep: number;
  release(): void;
  /** For a plan that will not run: its descriptors too. */
  discard(): void;
}

/** `denials`: whether refused calls are to be told, asked as late as can be. `whole`: nothing that was made ahead, so that the plan has every step. */
export async function prepare(
  asked: Settings,
  streams: Pick<Streams, 'child' | 'terminal'>,
  whole = false,
  denials: () => boolean = () => false,
): Promise<Prepared> {
  const releases: (() => void)[] = [];
  const release = (): void => {
    for (const give of releases.splice(0)) give();
  };
  const given = [...streams.child];
  const plan = new PlanBuilder();
  if (streams.terminal) given.push(streams.terminal.theirs);
  try {
    const apparmor = profileToEnter(asked.apparmor);
    checkLabels(asked.selinux);
    const fallback = await fallbackOf(asked, (trial, child) => prepare(trial, { child: [...child], terminal: undefined }, true));
    const possible = fallback?.settings ?? asked;
    const bridge = possible.bridge && (await BridgeNetwork.for(possible, possible.bridge));
    if (bridge) {
      releases.push(() => void bridge.release());
      given.push(bridge.channel.socket, bridge.channel.sent);
    }
    const root = await ownRoot(possible, releases);
    const withRoot = root ? { ...possible, rootfs: root } : possible;
    const settings = bridge ? { ...withRoot, mounts: [...bridge.mounts, ...withRoot.mounts] } : withRoot;
    const found = await findAll(settings, releases, given, whole, fallback, bridge);
    bridge?.seat.publish((settings.network?.ports ?? []).map((port, index) => ({ ...port, host: found.network?.ports[index]?.host ?? port.host })));
    const init = settings.init || settings.selinux?.process !== undefined || needsInit(settings, found.ids) ? openInit(settings.stdio.length + 6) : undefined;
    if (init) given.push(...Object.values(init.child), ...Object.values(init.ours));
    if (init) own(init.child.status, found.ids);
    ownPipes(settings, streams, found.ids, found.user);
    if (found.group?.recipe) releases.push(() => found.group?.cgroup.forget());
    const filters = settings.seccomp && filtersOf(settings.seccomp, denials() && !settings.detached);
    const channel = filters?.asks ? openChannel(settings.stdio.length + 6) : undefined;
    if (channel) given.push(...channel);
    const { home } = found;
    const { namespaces, missing } = compile(plan, home === undefined ? settings : { ...settings, env: { ...settings.env, HOME: home } }, {
      ...found,
      isFallback: fallback !== undefined,
      filters,
      apparmor,
      callChannel: channel?.[1],
      channel: bridge?.channel,
      stdio: streams.child,
      terminalChannel: streams.terminal?.theirs,
      terminalSize: streams.terminal?.stream?.size,
      init: init?.child,
    });
    return {
      plan,
      settings,
      fallback,
      namespaces,
      idMap: found.ids?.map ?? found.rootUse?.ids.map,
      driver: driverOf(settings),
      missing,
      init: init?.ours,
      group: found.group,
      bridge,
      landlock: found.landlock,
      apparmor,
      network: found.network,
      filters,
      callChannel: channel?.[0],
      execStep: plan.all.length - 1,
      release,
      discard: () => {
        for (const fd of plan.slots()) if (fd >= 0) native().close(fd);
        if (init) for (const fd of [init.ours.status, init.ours.pidfdSocket]) native().close(fd);
        if (channel) native().close(channel[0]);
        release();
      },
    };
  } catch (error) {
    for (const fd of new Set([...given, ...plan.slots()])) if (fd >= 0) native().close(fd);
    release();
    throw error;
  }
}

/** An image's, or the host's where overlayfs, which the plan would make one with, is not to be had: then it is by another driver. */
async function ownRoot({ image, rootfs, namespaces }: Settings, releases: (() => void)[]): Promise<OverlayRootfs | undefined> {
  if (image) return rootOf(() => OverlayRootfs.ofImage(image), releases);
  if (rootfs !== undefined || namespaces.mount !== 'new') return undefined;
  await tryMounts();
  return mountAbilities().overlay ? undefined : rootOf(() => OverlayRootfs.host(), releases);
}

/** It goes with the last release: the ids that it is used with are the ids of the spawn. */
async function rootOf(make: () => Promise<OverlayRootfs>, releases: (() => void)[]): Promise<OverlayRootfs> {
  const root = await make();
  releases.push(() => void root[Symbol.asyncDispose]());
  return root;
}

interface Found {
  readonly ids: Ids | undefined;
  readonly user: UserSetting;
  /** To be HOME, if that is known only now. */
  readonly home: string | undefined;
  readonly rootUse: RootUse | undefined;
  readonly overlayUses: readonly RootUse[];
  readonly hostRoot: HostRoot | undefined;
  readonly ready: Ready | undefined;
  readonly bindUserns: Context['bindUserns'];
  readonly group: ProcessGroup | undefined;
  readonly landlock: Ruleset | undefined;
  readonly network: ProcessNetwork | undefined;
  readonly egressChannel: number | undefined;
}

async function findAll(
  settings: Settings,
  releases: (() => void)[],
  given: number[],
  whole: boolean,
  fallback: Fallback | undefined,
  bridge: BridgeNetwork | undefined,
): Promise<Found> {
  const landlock = settings.landlock && rulesetFor(settings.landlock, landlockAbi(), fallback && { bestEffort: true, ...fallback });
  for (const name of landlock?.missing ?? []) fallback?.missing.push(`landlock.${name}`);
  const mounted = settings.mounts.flatMap((mount) => (mount.type === 'overlay' && 'source' in mount ? [mount.source] : []));
  const roots = settings.rootfs instanceof OverlayRootfs ? [settings.rootfs, ...mounted] : mounted;
  const newIds = settings.namespaces.user === 'new';
  if (settings.namespaces.mount === 'new') await tryMounts();
  const needsHost = settings.namespaces.mount === 'new' && !(settings.rootfs instanceof OverlayRootfs);
  const host = needsHost ? await hostRoot() : undefined;
  const ready = host && !whole && mayBeReady(settings, roots) ? takeReady(host) : undefined;
  if (host && !whole) releases.push(enter(host));
  if (ready) given.push(...descriptorsOf(ready));
  const joined = await joinedIds(settings);
  // A name in a borrowed root can be looked up only when that is in use, by the ids that it is used with.
  const early = typeof settings.user === 'string' && !(settings.rootfs instanceof OverlayRootfs) ? await lookUpUser(settings.user, settings.rootfs) : undefined;
  const ids = ready?.ids ?? (newIds ? await chooseIds(settings, roots, early) : (joined ?? hostIds));
  // What is not in a pid namespace of its own, or detached, can outlive what we know of it.
  const mayLive = settings.namespaces.pid !== 'new' || settings.detached;
  releases.push(() => ids.release(mayLive));
  const uses: RootUse[] = [];
  for (const root of roots) {
    const use = await root.use(ids);
    releases.push(() => use.release());
    uses.push(use);
  }
  const rootUse = settings.rootfs instanceof OverlayRootfs ? uses.shift() : undefined;
  const named = early ?? (typeof settings.user === 'string' ? await lookUpUser(settings.user, rootUse) : undefined);
  const user = named ?? (settings.user as UserSetting);
  if (newIds || joined) checkUser(user, ids.map, named !== undefined);
  const bindUserns = new Map<MountSetting, number>();
  for (const mount of settings.mounts) {
    if (mount.type !== 'bind' || mount.idMap === undefined) continue;
    const fd = await userNamespaceOfBind(mount.idMap, ids.map, caller(), mount.source);
    releases.push(() => native().close(fd));
    bindUserns.set(mount, fd);
  }
  const group = settings.cgroup && (await groupOf(settings, fallback));
  const network = settings.network && !whole ? await ProcessNetwork.open(settings.network, (name) => bridge?.neighbours(name) ?? []) : undefined;
  if (network) releases.push(() => network.close());
  // A plan that will not run has no way out to be opened.
  const egressChannel = settings.network?.egress && (network?.channel ?? checked(native().openFile('/dev/null'), 'open', 'make the way out'));
  if (egressChannel !== undefined) given.push(egressChannel);
  return {
    ids: newIds || joined ? ids : undefined,
    user,
    home: settings.homeOfUser ? named?.home : undefined,
    rootUse,
    overlayUses: uses,
    hostRoot: host,
    ready,
    bindUserns,
    group,
    network,
    egressChannel,
    landlock,
  };
}

async function groupOf({ cgroup, cpuTimeLimit, detached }: Settings, fallback: Fallback | undefined): Promise<ProcessGroup | undefined> {
  try {
    return await ProcessGroup.for(cgroup as NonNullable<Settings['cgroup']>, detached, fallback !== undefined);
  } catch (error) {
    if (!fallback || cgroup instanceof Cgroup || !(error instanceof CgroupError)) throw error;
    fallback.missing.push('cgroup', ...(cpuTimeLimit === undefined ? [] : ['cpuTimeLimit']));
    return undefined;
  }
}

/**
 * The usual spawn: what it needs may have been made ahead. Not where the network namespace has to be owned by the sandbox's user
 * namespace: a capability over it, or a sysctl of it, may be asked for, or it is to be changed by the child.
 */
function mayBeReady(settings: Settings, roots: readonly OverlayRootfs[]): boolean {
  const { namespaces, rootfs, idMap, sysctl, capabilities } = settings;
  if (settings.network?.egress || settings.selinux?.mount !== undefined) return false;
  if (roots.length > 0 || rootfs !== undefined || idMap !== 'auto' || sysctl.length > 0) return false;
  if (namespaces.user !== 'new' || namespaces.net !== 'new' || capabilities === 'caller' || capabilities.bounding !== 0n) return false;
  return !settings.mounts.some(({ type }) => type === 'sysfs');
}

function driverOf(settings: Settings): string {
  if (settings.namespaces.mount !== 'new') return 'none';
  if (settings.rootfs instanceof OverlayRootfs) return settings.rootfs.driver;
  return typeof settings.rootfs === 'string' && !settings.readonly ? 'directory' : 'overlay';
}
