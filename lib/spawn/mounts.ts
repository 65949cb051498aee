import { statSync } from 'node:fs';
import { basename } from 'node:path';
import type { Place } from '../cgroup/places.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Section, type Slot } from '../plan/steps.js';
import { mountAttr } from '../plan/structs.js';
import { cloneMount, newFilesystem, openDirectory } from '../rootfs/filesystem.js';
import { mountProc, mountSys } from '../rootfs/kernel-filesystems.js';
import { layer } from '../rootfs/overlay.js';
import type { RootUse } from '../rootfs/shared-root.js';
import { copyStored, Stage } from '../rootfs/stage.js';
import { attach, openTarget } from '../rootfs/targets.js';
import type { MountSetting } from './mount-settings.js';

export interface MountContext {
  readonly privileged: boolean;
  /** Where copies of an OverlayRootfs's mounts are made. */
  readonly setup: Section;
  /** The sandbox's ids, as a descriptor of ours: where there is one, binds show their owners rightly. */
  readonly userns: number | undefined;
  /** The same, of the binds that have an id map of their own. */
  readonly bindUserns: ReadonlyMap<MountSetting, number>;
  /** Of the overlay mounts with a `source`, in their order. */
  readonly uses: readonly RootUse[];
  readonly borrow: (name: string, fd: number) => Slot;
  /** Whose /proc and /sys they would be. */
  /** The sandbox's group, in each hierarchy. */
  readonly group: readonly Place[];
  readonly hostPid: boolean;
  readonly newNet: boolean;
}

/**
 * Opens what is mounted while names still mean the host's files, and as whom it must be: by us if we are privileged, as the
 * child may be nobody out here. What it returns adds the steps that attach it all inside, in order.
 */
export function addMounts(plan: PlanBuilder, mounts: readonly MountSetting[], context: MountContext): (root: Slot) => void {
  const uses = [...context.uses];
  const opening: Section = context.privileged ? context.setup : 'child';
  const attachers = mounts.map((mount) => prepare(plan, mount, context, opening, uses));
  return (root) => {
    for (const add of attachers) add(root);
  };
}

function prepare(plan: PlanBuilder, mount: MountSetting, context: MountContext, opening: Section, uses: RootUse[]): (root: Slot) => void {
  const label = (): PlanBuilder => plan.label(`mount ${mount.type}`, mount.target);
  const early = (make: () => Slot): (() => Slot) => {
    if (opening === 'child') return make;
    plan.in(opening);
    const slot = make();
    return () => slot;
  };
  const place = (root: Slot, slot: Slot, create: 'directory' | 'file', target = mount.target): void => {
    label();
    attach(plan, slot, openTarget(plan, root, target, { create, onSymlink: mount.type === 'file' && mount.onSymlink === true }));
    plan.release(slot);
  };
  switch (mount.type) {
    case 'bind': {
      const create = isFile(mount.source) ? 'file' : 'directory';
      const source = early(() => bind(plan, mount, context));
      return (root) => place(root, source(), create);
    }
    case 'tmpfs':
      return (root) => {
        label();
        const options = { mode: mount.mode.toString(8), ...(mount.size === undefined ? {} : { size: String(mount.size) }) };
        place(root, newFilesystem(plan, 'tmpfs', options, k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV), 'directory');
      };
    case 'proc':
      return (root) => mountProc(plan, root, mount.target, context.hostPid ? 'host' : 'new');
    case 'sysfs':
      return (root) => mountSys(plan, root, mount.target, context.newNet ? 'new' : 'host');
    case 'devpts':
    case 'mqueue':
      return (root) => {
        label();
        const attributes = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC | (mount.type === 'devpts' ? 0 : k.MOUNT_ATTR_NODEV);
        const options: Record<string, string> = mount.type === 'devpts' ? { ptmxmode: '0666', mode: '0620' } : {};
        place(root, newFilesystem(plan, mount.type, options, attributes), 'directory');
      };
    case 'cgroup':
      return (root) => {
        label();
        for (const { slot, below } of groupFilesystems(plan, context.group)) place(root, slot(label), 'directory', `${mount.target}${below}`);
      };
    case 'file':
      return (root) => {
        label();
        const base = newFilesystem(plan, 'tmpfs', { mode: '0755', size: String(mount.contents.byteLength + 4096) }, k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV);
        const file = plan.open('file', 'openat', [base, 'file', k.O_WRONLY | k.O_CREAT | k.O_EXCL | k.O_CLOEXEC, mount.mode]);
        plan.add('write', [file, mount.contents]);
        plan.release(file);
        const stage = new Stage(plan);
        stage.hold(base);
        const copy = plan.open('file mount', 'open_tree', [base, 'file', k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC]);
        stage.clear();
        place(root, copy, 'file');
        plan.release(base);
      };
    case 'overlay': {
      if ('source' in mount) {
        const use = uses.shift() as RootUse;
        plan.in(context.setup);
        label();
        const copies = copyStored(plan, use, context.borrow);
        return (root) => {
          for (const { target, isFile, mount: copy } of copies)
            place(root, copy, isFile ? 'file' : 'directory', target === '/' ? mount.target : `${mount.target}${target}`);
        };
      }
      const made = early(() => {
        label();
        const stage = new Stage(plan);
        const open = (path: string): Slot => {
          plan.label('layer of a mount', path);
          return context.privileged && context.userns !== undefined ? layer(plan, stage, path, context.userns) : openDirectory(plan, cwd, path);
        };
        const lowers = [...mount.layers].reverse().map(open);
        const openWritable = (path: string | undefined): Slot | undefined =>
          path === undefined ? undefined : openDirectory(plan.label('writable layer of a mount', path), cwd, path);
        const upper = openWritable(mount.upper);
        const work = openWritable(mount.work);
        label();
        // Directories of the caller's.
        const place = { from: cwd, path: '/', upper: mount.upper ?? '', work: mount.work ?? '' };
        const writable = upper && work && { upper, work, place, isKept: true, isPlaceless: false };
        const made = stage.driver.mount(plan, stage, { lowers, userxattr: !context.privileged, volatile: false, writable });
        stage.clear();
        return made;
      });
      return (root) => place(root, made(), 'directory');
    }
  }
}

function bind(plan: PlanBuilder, mount: MountSetting & { type: 'bind' }, { userns, bindUserns, privileged, borrow }: MountContext): Slot {
  plan.label('bind', mount.source);
  const attributes = k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOSUID | (mount.readonly ? k.MOUNT_ATTR_RDONLY : 0);
  const copy = cloneMount(plan, cwd, mount.source, { recursive: mount.recursive, attributes });
  const own = bindUserns.get(mount);
  if (own !== undefined) {
    const slot = borrow('user namespace of the bind', own);
    plan.add('mount_setattr', [
      copy,
      '',
      k.AT_EMPTY_PATH | (mount.recursive ? k.AT_RECURSIVE : 0),
      mountAttr({ set: k.MOUNT_ATTR_IDMAP, userns: plan.given(slot) }),
    ]);
  } else if (privileged && userns !== undefined) {
    // Apart from the call above, which must not fail: not every file system can map ids, and then owners appear as nobody.
    plan.add('mount_setattr', [copy, '', k.AT_EMPTY_PATH | (mount.recursive ? k.AT_RECURSIVE : 0), mountAttr({ set: k.MOUNT_ATTR_IDMAP, userns })], {
      tolerate: [k.EINVAL, k.EPERM],
    });
  }
  return copy;
}

/**
 * What the sandbox sees of its group: cgroup2, or where its group has hierarchies of v1, all of them in the layout that hosts have,
 * a directory each. They show its cgroup namespace, so they are mounted by who is in it.
 */
function groupFilesystems(plan: PlanBuilder, places: readonly Place[]): { below: string; slot: (label: () => void) => Slot }[] {
  const attributes = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC | k.MOUNT_ATTR_NODEV;
  const filesystem = (type: string, options: Record<string, string | true>) => (label: () => void) => {
    label();
    return newFilesystem(plan, type, options, attributes);
  };
  const v1 = places.filter(({ hierarchy }) => hierarchy.version === 'v1');
  if (v1.length === 0) return [{ below: '', slot: filesystem('cgroup2', {}) }];
  return [
    { below: '', slot: filesystem('tmpfs', { mode: '0755', size: '64K' }) },
    ...places.map(({ hierarchy: { version, mountpoint, controllers } }) => ({
      below: `/${basename(mountpoint)}`,
      slot: version === 'v2' ? filesystem('cgroup2', {}) : filesystem('cgroup', Object.fromEntries(controllers.map((name) => [name, true as const]))),
    })),
  ];
}

function isFile(path: string): boolean {
  try {
    return !statSync(path).isDirectory();
  } catch {
    // The plan's own step says what is wrong with it.
    return false;
  }
}
