import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import type { Slot } from '../plan/steps.js';
import { mountAttr } from '../plan/structs.js';

// New superblocks and detached mounts: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), mount_setattr(2).

/** A detached mount of a new superblock. Values that are `true` are flags. */
export function newFilesystem(plan: PlanBuilder, type: string, options: Readonly<Record<string, string | true>>, attributes: number): Slot {
  const context = plan.open(`${type} context`, 'fsopen', [type, k.FSOPEN_CLOEXEC]);
  for (const [key, value] of Object.entries(options)) {
    if (value === true) plan.add('fsconfig', [context, k.FSCONFIG_SET_FLAG, key, null, 0]);
    else plan.add('fsconfig', [context, k.FSCONFIG_SET_STRING, key, value, 0]);
  }
  return createFilesystem(plan, context, type, attributes);
}

/**
 * For a tmpfs of that size: an inode takes about a KiB of the kernel's memory, which its size does not count; by default a tmpfs may
 * have as many as half of the machine's pages (shmem_default_max_inodes).
 */
export const inodesOf = (size: number): number => Math.max(1024, Math.ceil(size / 2048));

/** Others take no context in a user namespace: selinux_set_mnt_opts. */
const labelled: ReadonlySet<string> = new Set(['tmpfs', 'devpts', 'overlay']);

export function createFilesystem(plan: PlanBuilder, context: Slot, type: string, attributes: number): Slot {
  if (plan.mountLabel !== undefined && labelled.has(type)) plan.add('fsconfig', [context, k.FSCONFIG_SET_STRING, 'context', plan.mountLabel, 0]);
  plan.add('fsconfig', [context, k.FSCONFIG_CMD_CREATE, null, null, 0]);
  const mount = plan.open(`${type} mount`, 'fsmount', [context, k.FSMOUNT_CLOEXEC, attributes]);
  plan.release(context);
  return mount;
}

export interface CloneOptions {
  readonly recursive?: boolean;
  readonly attributes?: number;
  /** Ids as this user namespace (a descriptor of ours, for steps of the parent) maps them. */
  readonly userns?: number | undefined;
}

/** A detached copy of the mount at `path`. Never a peer of the original: what is mounted in it must not appear outside. */
export function cloneMount(plan: PlanBuilder, from: Slot, path: string, options: CloneOptions = {}): Slot {
  const recursive = options.recursive ? k.AT_RECURSIVE : 0;
  const empty = path === '' ? k.AT_EMPTY_PATH : 0;
  const tree = plan.open(`copy of ${path || from.name}`, 'open_tree', [from, path, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | recursive | empty]);
  const set = (options.attributes ?? 0) | (options.userns === undefined ? 0 : k.MOUNT_ATTR_IDMAP);
  const attr = mountAttr({ set, propagation: k.MS_PRIVATE, ...(options.userns === undefined ? {} : { userns: options.userns }) });
  plan.add('mount_setattr', [tree, '', k.AT_EMPTY_PATH | recursive, attr]);
  return tree;
}

/** An O_PATH descriptor of a directory. `flags`: O_NOFOLLOW, where its name is ours. */
export function openDirectory(plan: PlanBuilder, from: Slot, path: string, flags = 0): Slot {
  return plan.open(path, 'openat', [from, path, k.O_PATH | k.O_DIRECTORY | k.O_CLOEXEC | flags, 0]);
}
