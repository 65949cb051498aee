import { IsolationError, optionError } from '../../errors.js';
import { native } from '../../native.js';
import { PlanBuilder } from '../../plan/builder.js';
import * as k from '../../plan/constants.js';
import { runPlan } from '../../plan/run.js';
import { cwd } from '../../plan/steps.js';
import * as check from '../../spawn/validate.js';
import { openDirectory } from '../filesystem.js';
import { hostRoot } from '../host-root.js';
import type { PartSource } from '../lowers.js';
import { directoryLower, type Made, type RootSettings } from '../make-root.js';
import { Stage } from '../stage.js';
import type { Branch } from '../types.js';
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

/** A layer more or less, as the kernel is told of it, and what the root is made of then. */
export interface BranchesChange {
  readonly directory: string;
  readonly mounted: { readonly what: 'add'; readonly index: number; readonly writable: boolean } | { readonly what: 'del' };
  readonly settings: { readonly layers: readonly string[]; readonly writableLayers: readonly string[]; readonly stores: readonly string[] };
}

export function addition(settings: RootSettings, directory: string, { writable = false, index }: { writable?: boolean; index?: number }): BranchesChange {
  const position = positionOf(index, settings);
  const { layers = [], writableLayers = [], frozen, stores } = settings;
  return {
    directory,
    mounted: { what: 'add', index: 1 + frozen.length + layers.length - position, writable },
    settings: { stores, layers: layers.toSpliced(position, 0, directory), writableLayers: writable ? [...writableLayers, directory] : writableLayers },
  };
}

export function removal({ layers = [], writableLayers = [], stores }: RootSettings, directory: string): BranchesChange {
  if (!layers.includes(directory) || layers.length === 1) throw optionError('directory', 'a layer of this root, and not its only one', directory);
  const others = (all: readonly string[]): string[] => all.filter((layer) => layer !== directory);
  return { directory, mounted: { what: 'del' }, settings: { stores, layers: others(layers), writableLayers: others(writableLayers) } };
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
export async function changeMounted(made: Made, { directory, mounted: change, settings }: BranchesChange): Promise<Made> {
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
  return { ...made, parts: relayered(made.parts, settings) };
}

function relayered([part, ...others]: readonly PartSource[], settings: BranchesChange['settings']): readonly PartSource[] {
  if (!part) return others;
  const layers = [...settings.layers].reverse().map((path) => directoryLower(path, settings));
  return [{ ...part, lowers: [...part.lowers.filter(({ kind }) => kind !== 'directory'), ...layers] }, ...others];
}

/** As OverlayRootfs.branches() tells them. */
export async function branchesOf(settings: RootSettings): Promise<Branch[]> {
  const { layers, writableLayers = [], frozen, upper } = settings;
  const below = layers ?? (await hostRoot(settings.hide, settings.driver)).shown.map(({ path }) => path);
  const branch = (path: string, writable: boolean): Branch => ({ path, writable, attributes: attributesOf(settings, writable, false) });
  return [
    { path: upper, writable: true, attributes: attributesOf(settings, true, true) },
    ...frozen.map(() => branch('frozen', false)),
    ...(layers ? [...below].reverse() : below).map((path) => branch(path, writableLayers.includes(path))),
  ];
}

function attributesOf({ driver, volatile }: Pick<RootSettings, 'driver' | 'volatile'>, writable: boolean, own: boolean): string[] {
  if (driver.name === 'aufs') return permission(writable);
  return own && volatile ? ['volatile'] : [];
}
