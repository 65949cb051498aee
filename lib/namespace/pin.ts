import { closeSync, openSync, unlinkSync } from 'node:fs';
import { IsolationError } from '../errors.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd } from '../plan/steps.js';
import { absolutePath } from '../spawn/validate.js';

/** namespaces(7), "The lifetime of a namespace": a bind mount of its file keeps it. */
export async function pin(fd: number, path: string): Promise<void> {
  absolutePath(path, 'path');
  const made = makeFile(path);
  const copy = native().duplicate(fd, 0);
  const plan = new PlanBuilder().in('parent').label('pin a namespace', path);
  plan.slot('namespace', copy);
  const tree = plan.open('namespace mount', 'open_tree', [cwd, `/proc/self/fd/${copy}`, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC]);
  plan.add('move_mount', [tree, '', cwd, path, k.MOVE_MOUNT_F_EMPTY_PATH]);
  try {
    await runPlan(plan);
  } catch (error) {
    if (made) unlinkSync(path);
    throw error;
  }
}

function makeFile(path: string): boolean {
  try {
    closeSync(openSync(path, 'wx', 0o444));
    return true;
  } catch (cause) {
    const { code, errno, syscall } = cause as NodeJS.ErrnoException;
    if (code === 'EEXIST') return false;
    throw IsolationError.ofErrno('ERR_CLOISTER_NAMESPACE', errno ?? -22, { step: 'pin a namespace', syscall, path, cause });
  }
}
