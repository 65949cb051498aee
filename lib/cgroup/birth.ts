import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { checked, native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd } from '../plan/steps.js';
import { removeTree } from './ending.js';
import { ownedName } from './owner-name.js';

// Whether a child can be born in a group (CLONE_INTO_CGROUP). From 6.14 on, and in stable kernels since, cgroup_css_set_fork notes how
// often the *caller's* group has been killed (cgroup.kill), and cgroup_post_fork compares that with the group that the child is born
// in: where the two differ the child is killed at birth. So it is after a kill() of a group that is used again, and in each group
// if somebody, a service manager, has ever killed ours and started us in it anew. Then the child moves itself.

let fresh: Promise<boolean> | undefined;

/** In a group that has never been killed; tried once, in one of our own beside `directory`. */
export function canBeBornInNew(directory: string): Promise<boolean> {
  fresh ??= tryNew(join(dirname(directory), ownedName()));
  return fresh;
}

async function tryNew(directory: string): Promise<boolean> {
  try {
    await mkdir(directory);
    return await canBeBornIn(directory);
  } catch {
    // The spawn itself will tell what is wrong.
    fresh = undefined;
    return true;
  } finally {
    await removeTree(directory).catch(() => {});
  }
}

/** A child that does nothing: it leaves with 127 unless it is killed before. */
export function canBeBornIn(directory: string): Promise<boolean> {
  const plan = new PlanBuilder().in('parent');
  plan.cloneFlags = k.CLONE_PIDFD;
  plan.cgroupSlot = plan.label('try a control group').open('control group', 'openat', [cwd, directory, k.O_RDONLY | k.O_DIRECTORY | k.O_CLOEXEC, 0]);
  plan.reportSlot = plan.slot('report pipe');
  const pipe = checked(native().pipe(), 'pipe2', 'make the report pipe') as [number, number];
  return new Promise((resolve) => {
    const child = new (native().Process)(
      plan.encode(),
      plan.slots(),
      pipe,
      false,
      // No process: whatever refuses it will refuse the spawn, in words.
      () => child.pidfd() < 0 && resolve(true),
      (_code, signal) => resolve(signal === 0),
    );
  });
}
