import { IsolationError } from '../errors.js';
import { checked, native } from '../native.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import { createFilesystem } from './filesystem.js';
import { mountAbilities } from './mount-abilities.js';

/** fsconfig(2) copies a value by strndup_user(…, 256); mount(2) copies a page, and sees to it that it ends with NUL. */
const [longestValue, longestData] = [255, 4095];

/** A parameter of an overlay; `true`: a flag. */
export type Parameter = readonly [key: string, value: string | true];

/**
 * Layers by name, for kernels that take no descriptors: a descriptor's name is its number in /proc/self/fd. A number has to be
 * known when the plan is written, so descriptors are moved to numbers that were taken before; one overlay after the other
 * uses the same ones.
 */
export class LayerNames {
  readonly #plan: PlanBuilder;
  readonly #numbers: Slot[] = [];
  #here: Slot | undefined;

  constructor(plan: PlanBuilder) {
    this.#plan = plan;
  }

  /** A detached overlay, with these parameters, of layers whose names have a meaning only here. */
  overlay(lowers: readonly Slot[], directories: readonly (readonly [key: string, slot: Slot])[], parameters: readonly Parameter[]): Slot {
    const plan = this.#plan;
    this.#here ??= plan.slot('working directory');
    plan.add('openat', [cwd, '.', k.O_PATH | k.O_DIRECTORY | k.O_CLOEXEC, 0], { out: this.#here });
    // A bare number is short, and all of them may have to fit into one value.
    plan.add('chdir', ['/proc/self/fd']);
    let used = 0;
    const nameOf = (slot: Slot): string => {
      const place = this.#numberAt(used++);
      plan.add('dup3', [slot, plan.given(place), k.O_CLOEXEC]);
      return String(plan.given(place));
    };
    const names = lowers.map(nameOf);
    const list = names.join(':');
    const oneByOne = mountAbilities().layersOneByOne;
    const layers: Parameter[] = oneByOne ? names.map((name) => ['lowerdir+', name]) : [['lowerdir', list]];
    const all = [...layers, ...directories.map(([key, slot]) => [key, nameOf(slot)] as const), ...parameters];
    const mount = oneByOne || list.length <= longestValue ? newOverlay(plan, all) : mountOverlay(plan, all, names.length);
    plan.add('fchdir', [this.#here]);
    plan.add('close', [this.#here]);
    return mount;
  }

  /** A path that leads to what a slot holds, from now on. */
  path(slot: Slot): string {
    const place = takeNumber(this.#plan, 'layer by its number');
    this.#plan.add('dup3', [slot, this.#plan.given(place), k.O_CLOEXEC]);
    return `/proc/self/fd/${this.#plan.given(place)}`;
  }

  #numberAt(index: number): Slot {
    const known = this.#numbers[index];
    if (known) return known;
    const slot = takeNumber(this.#plan, 'layer by its number');
    this.#numbers.push(slot);
    return slot;
  }
}

/** A number above those of the program's own descriptors, held by a descriptor of the plan's. */
export function takeNumber(plan: PlanBuilder, name: string): Slot {
  const step = 'take a number for a descriptor';
  const fd = checked(native().openFile('/dev/null'), 'open', step);
  const number = native().duplicate(fd, 64);
  native().close(fd);
  return plan.slot(name, checked(number, 'fcntl', step));
}

/** Device nodes in a layer are data; those that may be opened are in /dev. */
export function newOverlay(plan: PlanBuilder, parameters: readonly Parameter[], first?: (context: Slot) => void): Slot {
  const context = plan.open('overlay context', 'fsopen', ['overlay', k.FSOPEN_CLOEXEC]);
  first?.(context);
  for (const [key, value] of parameters) {
    if (value === true) plan.add('fsconfig', [context, k.FSCONFIG_SET_FLAG, key, null, 0]);
    else plan.add('fsconfig', [context, k.FSCONFIG_SET_STRING, key, value, 0]);
  }
  return createFilesystem(plan, context, 'overlay', k.MOUNT_ATTR_NODEV);
}

/**
 * Before `lowerdir+` only mount(2) takes a list of more than some sixty layers. It attaches what it makes: on '/', as `Stage` does,
 * from where it is copied; '/..' is the uppermost of what is mounted on the root (follow_dotdot, step_into).
 */
function mountOverlay(plan: PlanBuilder, parameters: readonly Parameter[], count: number): Slot {
  const words = parameters.map(([key, value]) => (value === true ? key : `${key}=${value}`));
  // A level may have commas: Documentation/filesystems/mount_api.rst, security_sb_eat_lsm_opts.
  const data = (plan.mountLabel === undefined ? words : [...words, `context="${plan.mountLabel}"`]).join();
  if (data.length > longestData) {
    throw new IsolationError('ERR_CLOISTER_ROOTFS', `this kernel cannot be given ${count} layers`, {
      step: 'mount the overlay',
      syscall: 'mount',
      hint: 'Linux 6.7 can. Before, all layers are in one page of text: put some together into one directory.',
    });
  }
  plan.add('mount', ['overlay', '/', 'overlay', k.MS_NODEV, data]);
  const copy = plan.open('overlay mount', 'open_tree', [cwd, '/..', k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC]);
  plan.add('umount2', ['/', k.MNT_DETACH]);
  return copy;
}
