import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import type { Slot } from '../plan/steps.js';
import { openHow } from '../plan/structs.js';

// Names inside a root are somebody else's: they are looked up below the root's descriptor, so that no symlink leads out of it
// (CVE-2024-45310 and its kin), and what is mounted on is the descriptor that was found, not its name once more.

const inRoot = k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS;

export interface TargetOptions {
  /** Made if it is missing, with its parents. */
  readonly create?: 'directory' | 'file';
  /** For the kernel's own file systems: a /proc that is a symlink is a trap, not a mount point. */
  readonly noSymlinks?: boolean;
  readonly tolerate?: readonly number[];
  /** The last name is not followed if it is a symlink. */
  readonly onSymlink?: boolean;
}

/** A slot with an O_PATH descriptor of `path` inside `root`. */
export function openTarget(plan: PlanBuilder, root: Slot, path: string, options: TargetOptions = {}): Slot {
  const names = path.split('/').filter((name) => name !== '');
  const target = plan.slot(`target ${path}`);
  const resolve = inRoot | (options.noSymlinks ? k.RESOLVE_NO_SYMLINKS : 0);
  const directory = options.create === 'directory' ? k.O_DIRECTORY : 0;
  const how = openHow(k.O_PATH | k.O_CLOEXEC | directory | (options.onSymlink ? k.O_NOFOLLOW : 0), resolve);
  const look = plan.add('openat2', [root, names.join('/') || '.', how], {
    out: target,
    tolerate: [...(options.create ? [k.ENOENT] : []), ...(options.tolerate ?? [])],
  });
  if (options.create === undefined) return target;
  plan.unless(look, 'done', () => {
    let parent = root;
    for (const [index, name] of names.entries()) {
      const last = index === names.length - 1;
      if (last && options.create === 'file') {
        const file = plan.slot('new file');
        plan.add('openat', [parent, name, k.O_WRONLY | k.O_CREAT | k.O_EXCL | k.O_NOFOLLOW | k.O_CLOEXEC, 0o644], { out: file, tolerate: [k.EEXIST] });
      } else {
        plan.add('mkdirat', [parent, name, 0o755], { tolerate: [k.EEXIST] });
      }
      const found = last ? target : plan.slot('parent');
      const kind = last ? how : openHow(k.O_PATH | k.O_CLOEXEC | k.O_DIRECTORY, resolve);
      plan.add('openat2', [root, names.slice(0, index + 1).join('/'), kind], { out: found });
      if (parent !== root) plan.release(parent);
      parent = found;
    }
  });
  return target;
}

/** Attaches a detached mount, where `openTarget` found the place. */
export function attach(plan: PlanBuilder, mount: Slot, target: Slot): void {
  plan.add('move_mount', [mount, '', target, '', k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH]);
  plan.release(target);
}
