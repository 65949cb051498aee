import { IsolationError } from '../errors.js';
import { checked, native } from '../native.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import { mountAbilities } from './mount-abilities.js';

/** fsconfig(2) copies a value by strndup_user(…, 256). */
const longestValue = 255;

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

  /** Sets the layers of an overlay, and makes it by `create` where these names have a meaning. */
  overlay(context: Slot, lowers: readonly Slot[], directories: readonly (readonly [key: string, slot: Slot])[], create: () => Slot): Slot {
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
    const set = (key: string, value: string): void => void plan.add('fsconfig', [context, k.FSCONFIG_SET_STRING, key, value, 0]);
    const names = lowers.map(nameOf);
    if (mountAbilities().layersOneByOne) for (const name of names) set('lowerdir+', name);
    else set('lowerdir', joined(names));
    for (const [key, slot] of directories) set(key, nameOf(slot));
    const mount = create();
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

function joined(names: readonly string[]): string {
  const value = names.join(':');
  if (value.length <= longestValue) return value;
  throw new IsolationError('ERR_CLOISTER_ROOTFS', `this kernel cannot be given ${names.length} layers`, {
    step: 'mount the overlay',
    syscall: 'fsconfig',
    hint: 'Linux 6.7 can. Before, all layers are one value of at most 255 bytes, which is some 60 layers: put some together into one directory.',
  });
}
