import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot, type Step } from '../plan/steps.js';
import { mountAttr, openHow } from '../plan/structs.js';
import { cloneMount, createFilesystem, newFilesystem } from './filesystem.js';
import { Stage } from './stage.js';
import { attach, openTarget } from './targets.js';

const inRoot = k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS;
const quiet = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC;

/** proc of the pid namespace of whoever runs this, or of another one: proc(5), "pidns", since 6.17. */
export function newProc(plan: PlanBuilder, pidns?: Slot): Slot {
  if (!pidns) return newFilesystem(plan, 'proc', {}, quiet);
  const context = plan.open('proc context', 'fsopen', ['proc', k.FSOPEN_CLOEXEC]);
  plan.add('fsconfig_fd', [context, k.FSCONFIG_SET_FD, 'pidns', null, pidns]);
  return createFilesystem(plan, context, 'proc', quiet);
}

/** proc of the pid namespace that the child is in; the host's own one where that is the host's. */
export function mountProc(plan: PlanBuilder, root: Slot, path: string, from: 'new' | 'host' | Slot): void {
  plan.label(`mount ${path}`, path);
  const host = (): Slot => cloneMount(plan, cwd, '/proc', { recursive: true, attributes: quiet });
  const mount = from === 'new' ? newProc(plan) : from === 'host' ? host() : from;
  attach(plan, mount, openTarget(plan, root, path, { create: 'directory', noSymlinks: true }));
  plan.release(mount);
}

/** sysfs, read-only. A new one shows the network devices of the new network namespace, which only its owner may mount. */
export function newSysfs(plan: PlanBuilder): Slot {
  return newFilesystem(plan, 'sysfs', {}, quiet | k.MOUNT_ATTR_RDONLY);
}

export function mountSys(plan: PlanBuilder, root: Slot, path: string, from: 'new' | 'host' | Slot): void {
  plan.label(`mount ${path}`, path);
  const host = (): Slot => cloneMount(plan, cwd, '/sys', { recursive: true, attributes: quiet | k.MOUNT_ATTR_RDONLY });
  const mount = from === 'new' ? newSysfs(plan) : from === 'host' ? host() : from;
  attach(plan, mount, openTarget(plan, root, path, { create: 'directory', noSymlinks: true }));
  plan.release(mount);
}

/**
 * Covers what a path shows: a directory by an empty one, anything else by /dev/null; both are the kit's if there is one. Paths that
 * are not there are passed over, as runtime-spec says.
 */
export function maskPaths(plan: PlanBuilder, root: Slot, paths: readonly string[], kit: Slot | undefined): void {
  plan.label('make an empty directory for masks');
  const stage = new Stage(plan);
  const empty = kit ?? stage.hold(newFilesystem(plan, 'tmpfs', { mode: '0555' }, k.MOUNT_ATTR_RDONLY));
  const blank = kit ? 'blank' : '';
  const target = plan.slot('path to mask');
  const over = plan.slot('mask');
  const look = (path: string, flags: number, tolerate: number[]): Step =>
    plan.add('openat2', [root, path.slice(1), openHow(k.O_PATH | k.O_CLOEXEC | flags, inRoot)], { out: target, tolerate });
  const cover = (base: Slot, source: string, flags: number): Step => {
    plan.add('open_tree', [base, source, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | flags], { out: over });
    return plan.add('move_mount', [over, '', target, '', k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH]);
  };
  for (const path of paths) {
    plan.label('mask', path);
    let covered: Step | undefined;
    plan.unless(look(path, k.O_DIRECTORY, [k.ENOENT, k.ENOTDIR]), 'tolerated', () => {
      covered = cover(empty, blank, blank === '' ? k.AT_EMPTY_PATH : 0);
    });
    plan.unless(covered as Step, 'done', () => {
      plan.unless(look(path, 0, [k.ENOENT, k.ENOTDIR]), 'tolerated', () => (kit ? cover(kit, 'dev/null', 0) : cover(cwd, '/dev/null', 0)));
    });
  }
  stage.clear();
}

/** Mounts each path, with what is mounted below it, read-only over itself. */
export function readonlyPaths(plan: PlanBuilder, root: Slot, paths: readonly string[]): void {
  const target = plan.slot('path to make read-only');
  const copy = plan.slot('read-only copy');
  for (const path of paths) {
    plan.label('make read-only', path);
    const look = plan.add('openat2', [root, path.slice(1), openHow(k.O_PATH | k.O_CLOEXEC, inRoot)], { out: target, tolerate: [k.ENOENT, k.ENOTDIR] });
    plan.unless(look, 'tolerated', () => {
      plan.add('open_tree', [target, '', k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_RECURSIVE | k.AT_EMPTY_PATH], { out: copy });
      plan.add('mount_setattr', [copy, '', k.AT_EMPTY_PATH | k.AT_RECURSIVE, mountAttr({ set: k.MOUNT_ATTR_RDONLY })]);
      plan.add('move_mount', [copy, '', target, '', k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH]);
    });
  }
}
