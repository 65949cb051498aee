import { IsolationError } from '../errors.js';
import { caller } from '../host/caller.js';
import { chrootAdvice } from '../host/hints.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd, type Slot } from '../plan/steps.js';
import { mountAttr } from '../plan/structs.js';
import { idsFor } from '../security/id-map.js';
import type { Driver } from './drivers/driver.js';
import { overlay as overlayfs } from './drivers/overlay.js';
import { cloneMount } from './filesystem.js';
import { hiddenIn, hideLayer } from './hide-layer.js';
import { type HostLayout, type HostMount, hostLayout, hostTree, mostLayouts, type TreeEntry } from './host-layout.js';
import { discardKit, type Kit, makeKit } from './kit.js';
import { type Lower, type LowerContext, type OwnerIds, openLower, type PartSource, rootAttributes } from './lowers.js';
import { mountAbilities, tryMounts } from './mount-abilities.js';
import { layer, overlay, tmpfsUpper, type UpperSpace, upperName } from './overlay.js';
import type { RootMount } from './root-mount.js';
import { beginMaking } from './stage.js';

// The host's tree as a copy-on-write root. A privileged caller overlays each of the host's mounts, with ids mapped; an ordinary
// user puts a root together from overlays of single directories.

export interface HostRoot {
  readonly layout: HostLayout;
  /** Each mount of the layout that can be shown: with ids mapped, or only as it is. */
  readonly shown: readonly (HostMount & { readonly index: number; readonly idmapped: boolean; readonly hides: boolean })[];
  /** Not shown, and whose owners could not be mapped. */
  readonly missing: readonly string[];
  readonly kit: Kit | undefined;
}

const known = new Map<string, { readonly layout: HostLayout; readonly root: Promise<HostRoot> }>();

/** What can be shown of the host, found by trying each mount once; again when the host's mounts change. */
export function hostRoot(hide: readonly string[] = [], driver: Driver = overlayfs): Promise<HostRoot> {
  const layout = hostLayout(hide);
  const key = [driver.name, ...hide].join('\0');
  const before = known.get(key);
  // The latest is the last of them.
  known.delete(key);
  if (before?.layout === layout) {
    known.set(key, before);
    return before.root;
  }
  const made = { layout, root: examine(layout, driver) };
  known.set(key, made);
  if (before) discard(before.root);
  made.root.catch(() => known.get(key) === made && known.delete(key));
  for (const [oldest, { root }] of known) {
    if (known.size <= mostLayouts) break;
    known.delete(oldest);
    discard(root);
  }
  return made.root;
}

/** Whoever has asked for it before has duplicates of its descriptors by then. */
function discard(root: Promise<HostRoot>): void {
  void root.then(({ kit }) => kit && discardKit(kit)).catch(() => {});
}

async function examine(layout: HostLayout, driver: Driver): Promise<HostRoot> {
  const who = caller();
  await tryMounts();
  const ids = await idsFor('auto', who, { uid: 0, gid: 0 });
  let kit: Kit | undefined;
  try {
    if (who.privileged && mountAbilities().detached) kit = await makeKit(layout);
    const shown: HostRoot['shown'][number][] = [];
    const missing: string[] = [];
    for (const [index, mount] of layout.mounts.entries()) {
      const hides = hiddenIn(layout, mount.path).length > 0;
      if (mount.kind === 'file' || !who.privileged) {
        shown.push({ ...mount, index, hides, idmapped: false });
      } else if (ids.userns !== undefined && (await works(mount, ids.userns, driver))) {
        shown.push({ ...mount, index, hides, idmapped: true });
      } else if (await works(mount, undefined, driver)) {
        shown.push({ ...mount, index, hides, idmapped: false });
        if (ids.userns !== undefined) missing.push(`${mount.path} (owners: ids cannot be mapped on its file system, so its files belong to nobody inside)`);
      } else {
        missing.push(mount.path);
      }
    }
    if (!shown.some(({ path }) => path === '/')) {
      const chroot = chrootAdvice();
      if (chroot) throw new IsolationError('ERR_CLOISTER_ROOTFS', chroot.what, { step: 'prepare the default root', path: '/', ...chroot });
      throw new IsolationError('ERR_CLOISTER_ROOTFS', "the host's / cannot be overlaid", {
        step: 'prepare the default root',
        path: '/',
        hint: 'Its file system may not be fit for a lower layer (an overlay on an overlay of an overlay, for one). Choose another rootfs.',
      });
    }
    return { layout, shown, missing, kit };
  } catch (error) {
    if (kit) discardKit(kit);
    throw error;
  } finally {
    ids.release();
  }
}

async function works(mount: HostMount, userns: number | undefined, driver: Driver): Promise<boolean> {
  const plan = new PlanBuilder();
  beginMaking(plan);
  plan.label('try an overlay', mount.path);
  const space = tmpfsUpper(plan, 2 ** 20, undefined);
  // Whether another driver can have it only its program knows: that it can be shown with its owners is the rest.
  if (driver.host === 'one layer') cloneMount(plan, cwd, mount.path, { userns });
  else overlay(plan, space, { lowers: [layer(plan, space.stage, mount.path, userns)], userxattr: false, volatile: false });
  try {
    await runPlan(plan);
    return true;
  } catch (error) {
    if (error instanceof IsolationError) return false;
    throw error;
  }
}

/** The overlays of a privileged caller's root. */
export function privilegedParts(root: HostRoot, ids: OwnerIds, above: (target: string) => readonly Lower[] = () => []): PartSource[] {
  return root.shown
    .filter(({ kind }) => kind === 'directory')
    .map(({ path, index, idmapped, hides }, part) => {
      const hiding: Lower = root.kit ? { kind: 'kit', name: `hide/${index}` } : { kind: 'base', name: `hide${index}` };
      const lowers: Lower[] = [...above(path), ...(hides ? [hiding] : []), { kind: 'mount', path, idmapped }];
      return { target: path, upper: upperName(part), lowers, root: rootAttributes(path, lowers, ids) };
    });
}

/**
 * Steps of the parent, or a joiner: detached overlays of the host's mounts. `kit` holds a duplicate of the kit's descriptor, if there is one. The
 * space's stage is to be cleared by whoever calls.
 */
export function privilegedHostRoot(
  plan: PlanBuilder,
  root: HostRoot,
  kit: Slot | undefined,
  space: UpperSpace,
  userns: number | undefined,
  parts: readonly PartSource[],
): RootMount[] {
  const mounts: RootMount[] = [];
  const context: LowerContext = { privileged: true, kit, base: space.base, userns, stage: space.stage, held: new Map() };
  for (const { path, kind, index, hides } of root.shown) {
    if (hides && !kit) hideLayer(plan, space.base, `hide${index}`, path, root.layout, false, space.owner);
    plan.label(kind === 'file' ? 'show a file of the host' : 'overlay a mount of the host', path);
    if (kind === 'file') {
      mounts.push({ target: path, isFile: true, mount: cloneMount(plan, cwd, path, { attributes: k.MOUNT_ATTR_RDONLY }) });
      continue;
    }
    const part = parts.find(({ target }) => target === path) as PartSource;
    const lowers = part.lowers.map((lower) => openLower(plan, lower, context));
    mounts.push({ target: path, mount: overlay(plan, space, { lowers, userxattr: false, volatile: false, root: part.root }) });
    for (const used of lowers) space.stage.release(used);
  }
  return mounts;
}

/** How many directories an ordinary user's root overlays at the most; those beyond are named as missing. */
const mostOverlays = 64;

export interface OrdinaryHostRoot {
  readonly mounts: RootMount[];
  readonly missing: string[];
  readonly parts: PartSource[];
}

/**
 * Steps of whoever is in the new user and mount namespaces: a root on tmpfs, itself overlaid so that its changes can be told, with the
 * host's directories overlaid one by one. `above`: further layers, to lie upon those of the host.
 */
export function ordinaryHostRoot(
  plan: PlanBuilder,
  root: HostRoot,
  space: UpperSpace,
  above: (target: string) => readonly Lower[] = () => [],
): OrdinaryHostRoot {
  const { detached, tmpfsUserXattrs } = mountAbilities();
  const { entries, missing } = hostTree(root.layout, mostOverlays, tmpfsUserXattrs);
  const parts: PartSource[] = [];
  const context: LowerContext = { privileged: false, kit: undefined, base: space.base, userns: undefined, stage: space.stage, held: new Map() };
  const slots = { copy: plan.slot('copy'), lower: plan.slot('lower'), hide: plan.slot('hiding layer') };
  makeDirectoryTree(plan, space.base, entries);
  const make = (target: string, lowers: readonly Lower[]): Slot => {
    const attributes = rootAttributes(target, [...above(target), ...lowers], 'ordinary');
    parts.push({ target, upper: upperName(parts.length), lowers: [...above(target), ...lowers], root: attributes });
    const opened = above(target).map((lower) => openLower(plan, lower, context));
    for (const lower of lowers) {
      const slot = lower.kind === 'base' ? slots.hide : slots.lower;
      const [from, name] = lower.kind === 'base' ? [space.base, lower.name] : [cwd, (lower as { path: string }).path];
      plan.add('openat', [from, name, k.O_PATH | k.O_DIRECTORY | k.O_CLOEXEC, 0], { out: slot });
      opened.push(slot);
    }
    const mount = overlay(plan, space, { lowers: opened, userxattr: true, volatile: false, root: attributes });
    for (const used of opened) plan.add('close', [used]);
    return mount;
  };
  const base = make('/', [{ kind: 'base', name: treeName }]);
  if (!detached) plan.add('move_mount', [base, '', cwd, '/', k.MOVE_MOUNT_F_EMPTY_PATH]);
  for (const entry of entries) {
    if (entry.kind === 'overlay') {
      const lowers: Lower[] = [{ kind: 'mount', path: entry.path, idmapped: false }];
      if (hiddenIn(root.layout, entry.path).length > 0) {
        const name = `hide${parts.length}`;
        hideLayer(plan, space.base, name, entry.path, root.layout, true);
        lowers.unshift({ kind: 'base', name });
      }
      plan.label('overlay a directory of the host', entry.path);
      const mount = make(entry.path, lowers);
      plan.add('move_mount', [mount, '', base, entry.path.slice(1), k.MOVE_MOUNT_F_EMPTY_PATH]);
      plan.add('close', [mount]);
    } else if (entry.kind === 'file') {
      plan.label('show a file of the host', entry.path);
      plan.add('open_tree', [cwd, entry.path, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC], { out: slots.copy });
      // A file cannot be overlaid, so it must not be written to: it is the host's own.
      plan.add('mount_setattr', [slots.copy, '', k.AT_EMPTY_PATH, mountAttr({ set: k.MOUNT_ATTR_RDONLY, propagation: k.MS_PRIVATE })]);
      plan.add('move_mount', [slots.copy, '', base, entry.path.slice(1), k.MOVE_MOUNT_F_EMPTY_PATH]);
      plan.add('close', [slots.copy]);
    }
  }
  const mounts: RootMount[] = [{ target: '/', mount: base, isAttached: !detached }];
  return { mounts, missing: tmpfsUserXattrs ? missing : [...missing, withoutUserXattrs], parts };
}

/** ovl_set_opaque in fs/overlayfs/dir.c gives EIO where an upper cannot have the attribute. */
export const withoutUserXattrs =
  '/ (new directories in the place of deleted ones of the layers: EIO, as tmpfs has no user attributes before Linux 6.6; an upper on a disk has them)';

/** Beside the upper directories: what the root itself is, below its own writable layer. */
const treeName = 'tree';

function makeDirectoryTree(plan: PlanBuilder, base: Slot, entries: readonly TreeEntry[]): void {
  plan.label('make the root', '/');
  plan.add('mkdirat', [base, treeName, 0o755], { tolerate: [k.EEXIST] });
  for (const entry of entries) {
    const name = treeName + entry.path;
    // They are there already where a directory of an earlier root is used again.
    const again = { tolerate: [k.EEXIST] };
    if (entry.kind === 'symlink') plan.add('symlinkat', [entry.target, base, name], again);
    else if (entry.kind === 'file') plan.add('mknodat', [base, name, k.S_IFREG | 0o644, 0], again);
    else plan.add('mkdirat', [base, name, entry.kind === 'directory' ? entry.mode : 0o755], again);
  }
}
