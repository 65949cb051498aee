import { IsolationError } from '../errors.js';
import { caller } from '../host/caller.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd } from '../plan/steps.js';
import { mountAttr } from '../plan/structs.js';
import type { Made } from './make-root.js';
import { mountAbilities } from './mount-abilities.js';
import type { RootUse } from './shared-root.js';
import { copyStored } from './stage.js';
import { attach, openTarget } from './targets.js';

/** Mounts copies of a root's mounts on a directory of the host, until the result is disposed of; then the root is released, too. */
export async function mountAt(use: RootUse, target: string): Promise<AsyncDisposable> {
  try {
    const fd = await mountCopies(use, target);
    let end: Promise<void> | undefined;
    return {
      [Symbol.asyncDispose]: () => {
        end ??= unmount(fd, target).finally(() => use.release());
        return end;
      },
    };
  } catch (error) {
    use.release();
    throw error;
  }
}

/** A descriptor of the uppermost of them. */
async function mountCopies(made: Made, target: string): Promise<number> {
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
  const { detached } = mountAbilities();
  const plan = new PlanBuilder().in(detached ? 'parent' : 'join');
  // Whoever shares a working directory with others cannot enter a mount namespace (mntns_install).
  if (!detached) plan.joinFlags = 0;
  const [root, ...others] = copyStored(plan, made, (name, fd) => plan.slot(name, native().duplicate(fd, 64)));
  if (!root) throw new RangeError('a root has a mount');
  // Set-id programs in it are a stranger's, and whoever may look there could run them. These are copies: inside nothing changes.
  for (const { mount } of [root, ...others]) {
    plan.add('mount_setattr', [mount, '', k.AT_EMPTY_PATH | k.AT_RECURSIVE, mountAttr({ set: k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV })]);
  }
  const mountRoot = (): unknown =>
    plan.label('mount on a directory of the host', target).add('move_mount', [root.mount, '', cwd, target, k.MOVE_MOUNT_F_EMPTY_PATH]);
  // Before 6.15 nothing can be mounted on what is not attached. Else all of it at once: nobody sees a part.
  if (!detached) mountRoot();
  for (const { target: inside, mount } of others) {
    plan.label('mount part of the root', inside);
    attach(plan, mount, openTarget(plan, root.mount, inside));
    plan.release(mount);
  }
  if (detached) mountRoot();
  plan.keep(root.mount);
  return (await runPlan(plan))(root.mount);
}

async function unmount(fd: number, target: string): Promise<void> {
  const plan = new PlanBuilder().in('parent');
  // This very mount, whatever its name leads to by now. EINVAL: somebody has unmounted it already.
  plan.label('unmount the root', target).add('umount2', [`/proc/self/fd/${fd}`, k.MNT_DETACH], { tolerate: [k.EINVAL] });
  try {
    await runPlan(plan);
  } finally {
    native().close(fd);
  }
}
