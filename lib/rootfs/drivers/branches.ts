import { IsolationError, optionError } from '../../errors.js';
import { native } from '../../native.js';
import { PlanBuilder } from '../../plan/builder.js';
import * as k from '../../plan/constants.js';
import { runPlan } from '../../plan/run.js';
import { cwd } from '../../plan/steps.js';
import * as check from '../../spawn/validate.js';
import { openDirectory } from '../filesystem.js';
import type { Made, RootSettings } from '../make-root.js';
import { Stage } from '../stage.js';
import { type BranchChange, changeBranch, permission } from './aufs.js';
import type { Driver } from './driver.js';

// Layers that come and go while a root is mounted: only aufs can.

export function checkBranch(driver: Driver, what: string, directory: unknown, options: { writable?: boolean; index?: number }): void {
  check.absolutePath(directory, 'directory');
  check.record(options, 'options');
  check.onlyKeys(options, '', ['writable', 'index']);
  if (options.writable !== undefined) check.flag(options.writable, 'writable');
  if (driver.name === 'aufs') return;
  throw new IsolationError('ERR_CLOISTER_UNSUPPORTED', `${what}: with ${driver.name} the layers are fixed when it is mounted; only aufs can change them`, {
    path: directory as string,
    hint: 'Make another OverlayRootfs with the layers that you want; fork() takes what has been written along.',
  });
}

/** Where in `layers`, base first, a branch goes that is to be the `index`th of all, the writable one being 0. */
export function positionOf(index: number | undefined, { layers, frozen }: Pick<RootSettings, 'layers' | 'frozen'>): number {
  if (layers === undefined) {
    throw new IsolationError('ERR_CLOISTER_UNSUPPORTED', "the host's tree is several mounts, and has no line of branches to add to", {
      hint: 'Use OverlayRootfs.create with the layers that you want.',
    });
  }
  const first = 1 + frozen.length;
  const at = index ?? first;
  if (!Number.isInteger(at) || at < first || at > first + layers.length) {
    throw optionError('index', `a whole number from ${first} to ${first + layers.length}: the layer that this root writes to stays the uppermost`, index);
  }
  return layers.length - (at - first);
}

/** Of a root that is mounted. ERR_CLOISTER_ROOTFS if the kernel refuses it. */
export async function changeMounted(
  made: Made,
  directory: string,
  change: { readonly what: 'add'; readonly index: number; readonly writable: boolean } | { readonly what: 'del' },
): Promise<void> {
  const plan = new PlanBuilder().in('parent');
  plan.label(change.what === 'add' ? 'use a layer' : 'use a layer no more', directory);
  const mounted = plan.slot('root', native().duplicate(made.mounts[0]?.fd as number, 64));
  const slot = openDirectory(plan, cwd, directory);
  changeBranch(plan, new Stage(plan, made.driver), mounted, { ...change, directory: slot } as BranchChange);
  try {
    await runPlan(plan);
  } catch (error) {
    if (!(error instanceof IsolationError) || error.errno !== -k.EBUSY) throw error;
    throw new IsolationError('ERR_CLOISTER_BUSY', `${directory} is in use through the root, and cannot be taken out of it`, {
      path: directory,
      hint: 'Close what is open in it (aufs(5), "del:dir").',
      cause: error,
    });
  }
}

/** As Branch.attributes tells it. */
export function attributesOf({ driver, volatile }: Pick<RootSettings, 'driver' | 'volatile'>, writable: boolean, own: boolean): string[] {
  if (driver.name === 'aufs') return permission(writable);
  return own && volatile ? ['volatile'] : [];
}
