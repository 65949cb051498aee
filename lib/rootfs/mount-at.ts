import { IsolationError } from '../errors.js';
import { caller } from '../host/caller.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd } from '../plan/steps.js';
import type { Made } from './make-root.js';
import { attach, openTarget } from './targets.js';

/** Mounts copies of a root's mounts on a directory of the host. The function takes them away. */
export async function mountAt(made: Made, target: string): Promise<() => Promise<void>> {
  if (!caller().privileged) {
    throw new IsolationError(
      'ERR_CLOISTER_MOUNT',
      `EPERM: mount the root ${target} (move_mount): an ordinary user cannot mount where the host's programs see it`,
      {
        errno: -k.EPERM,
        syscall: 'move_mount',
        step: 'mount the root',
        path: target,
        hint: 'Run the program in the root (spawnIsolated with rootfs), or read what was written by changes() and diff().',
      },
    );
  }
  const plan = new PlanBuilder().in('parent');
  const copies = made.mounts.map(({ target: inside, fd }) => {
    plan.label('copy the root', inside);
    const from = plan.slot(`root ${inside}`, native().duplicate(fd, 64));
    const mount = plan.open(`copy of ${inside}`, 'open_tree', [from, '', k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_RECURSIVE | k.AT_EMPTY_PATH]);
    plan.release(from);
    return { inside, mount };
  });
  const [root, ...others] = copies;
  if (!root) throw new RangeError('a root has a mount');
  for (const { inside, mount } of others) {
    plan.label('mount part of the root', inside);
    attach(plan, mount, openTarget(plan, root.mount, inside));
    plan.release(mount);
  }
  // All of it at once: nobody sees a part.
  plan.label('mount the root', target).add('move_mount', [root.mount, '', cwd, target, k.MOVE_MOUNT_F_EMPTY_PATH]);
  plan.keep(root.mount);
  const fd = (await runPlan(plan))(root.mount);
  return async () => {
    const away = new PlanBuilder().in('parent');
    // This very mount, whatever its name leads to by now. EINVAL: somebody has unmounted it already.
    away.label('unmount the root', target).add('umount2', [`/proc/self/fd/${fd}`, k.MNT_DETACH], { tolerate: [k.EINVAL] });
    try {
      await runPlan(away);
    } finally {
      native().close(fd);
    }
  };
}
