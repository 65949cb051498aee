import { EventEmitter } from 'node:events';
import { CgroupError, IsolationError, optionError } from '../errors.js';
import * as check from '../spawn/validate.js';
import { canBeBornIn, canBeBornInNew } from './birth.js';
import { support } from './delegation.js';
import { DeviceLimit } from './device-limit.js';
import { killAll, removeTree, untilEmpty } from './ending.js';
import { existingGroup } from './existing-group.js';
import { freeze, thaw } from './freezer.js';
import { checkLimits, type Limits } from './limits.js';
import { limitsNow } from './limits-now.js';
import type { Recipe } from './make.js';
import { addMember, membersOf } from './members.js';
import { checkName, makeGroup } from './new-group.js';
import { ownedName } from './owner-name.js';
import { mainOf, type Place, placesBelow, placesFor, removeEmpty, v2Of } from './places.js';
import { triggerOf } from './pressure.js';
import { cgroupError } from './refusal.js';
import { Sampling } from './sampling.js';
import { StatFiles } from './stats.js';
import type { CgroupEvents, CgroupLimits, CgroupLimitsNow, CgroupStats, CgroupSupport } from './types.js';
import { update } from './update.js';
import { Watches } from './watches.js';

/**
 * A control group: a set of processes with limits of their own, on cgroup v1, v2 or both; cgroups(7). One vocabulary, that of v2:
 * docs/cgroups.md has the table. What this host cannot express is refused with ERR_CLOISTER_CGROUP_UNSUPPORTED, what it does not let
 * us do with ERR_CLOISTER_CGROUP_DELEGATION (no place to make one) or ERR_CLOISTER_CGROUP.
 *
 * Needs root, or a delegated subtree of v2 that this process is in. Events tell of what happens in it and do not keep the process alive.
 */
export class Cgroup extends EventEmitter<CgroupEvents> implements AsyncDisposable {
  /** Relative to where groups are made, or to the hierarchy for one that was opened. */
  readonly name: string;
  readonly #places: Place[];
  readonly #devices: DeviceLimit;
  readonly #watches: Watches;
  #sampling: Sampling | undefined;
  #files: StatFiles | undefined;
  #deleted = false;
  /** By us, and not killed since. */
  #made: boolean;
  #birth: Promise<boolean> | undefined;

  /** @internal A group that exists, or that a plan is about to make. */
  constructor(name: string, places: readonly Place[], recipe?: Recipe) {
    super();
    this.name = name;
    this.#places = [...places];
    this.#devices = new DeviceLimit(recipe?.limits.devices, recipe?.program ?? -1);
    this.#made = recipe !== undefined;
    this.#watches = new Watches(this as EventEmitter, this.#places);
  }

  /**
   * Makes a group below the caller's own, or below `parent`, with every controller that is to be had. `name`: one path component or
   * several; without one it is made of our pid and start time, so that it is removed even if this process is killed.
   */
  static async create(name?: string, limits: CgroupLimits = {}, options: { parent?: Cgroup | string } = {}): Promise<Cgroup> {
    const path = name === undefined ? ownedName() : checkName(name, 'name');
    const checked = checkLimits(limits, 'limits');
    check.onlyKeys(check.record(options, 'options'), '', ['parent']);
    const { parent } = options;
    if (parent !== undefined && !(parent instanceof Cgroup) && typeof parent !== 'string') throw optionError('parent', 'a Cgroup or the path of one', parent);
    return Cgroup.#make(path, checked, typeof parent === 'string' ? await Cgroup.open(parent) : parent);
  }

  /** A group that exists, by its directory in any hierarchy: in the others it is where that has the same path. Never removed unless `delete` is called. */
  static async open(path: string): Promise<Cgroup> {
    const { name, places } = existingGroup(check.absolutePath(path, 'path'));
    return new Cgroup(name, places);
  }

  /** What this host has, and where this process may make groups. Changes nothing. */
  static async support(): Promise<CgroupSupport> {
    return support();
  }

  static async #make(name: string, limits: Limits, parent: Cgroup | undefined): Promise<Cgroup> {
    const places = parent ? await placesBelow(parent.places, parent.name, name, limits) : await placesFor(name, limits);
    return new Cgroup(name, places, await makeGroup(places, limits));
  }

  /** Controllers are enabled for it on v2, which needs this group to have no processes of its own. */
  async child(name: string, limits: CgroupLimits = {}): Promise<Cgroup> {
    return Cgroup.#make(checkName(name, 'name'), checkLimits(limits, 'limits'), this);
  }

  /** Moves a process, with all its threads, into it. */
  async add(pid: number): Promise<void> {
    check.integer(pid, 'pid', 1, 2 ** 22);
    this.#alive();
    await addMember(this.#places, pid);
  }

  /** Their ids as this process sees them; not those in children of the group. */
  async processes(): Promise<number[]> {
    this.#alive();
    return membersOf(this.#places);
  }

  /** As they are in force now. `devices` of a v2 group that was opened, not made here, are not known: a program decides about them. */
  async limits(): Promise<CgroupLimitsNow> {
    this.#alive();
    return limitsNow(this.#places, this.#devices.rules);
  }

  /** Changes what is named, and nothing else; 'max' lifts a limit. Devices are replaced as a whole, in one step on v2. */
  async update(limits: CgroupLimits): Promise<void> {
    const checked = checkLimits(limits, 'limits');
    this.#alive();
    await update(this.name, this.#places, checked);
    if (checked.devices) this.#devices.replace(this.#places, checked.devices);
  }

  /** All counters, in one reading of descriptors that are kept open; microseconds and bytes. */
  async stats(): Promise<CgroupStats> {
    this.#alive();
    this.#files ??= new StatFiles(this.#places);
    return this.#files.read();
  }

  /** Samples until the loop is left, `signal` aborts or the group is deleted. `at` is performance.now(). */
  async *watch(options: { intervalMs?: number; signal?: AbortSignal } = {}): AsyncGenerator<CgroupStats & { at: number }, void, void> {
    this.#sampling ??= new Sampling();
    if (this.#deleted) this.#sampling.end();
    yield* this.#sampling.each(options, () => this.stats());
  }

  /**
   * The event 'pressure' each time that tasks in it were stalled for `stallMs` within `windowMs` (500 to 10,000; without CAP_SYS_RESOURCE
   * whole multiples of 2,000), until the result is disposed. Needs v2, also beside v1. Documentation/accounting/psi.rst.
   */
  async onPressure(resource: 'cpu' | 'memory' | 'io', options: { kind?: 'some' | 'full'; stallMs: number; windowMs: number }): Promise<Disposable> {
    const trigger = triggerOf(resource, options);
    this.#alive();
    return this.#watches.pressure(trigger);
  }

  /** Resolves when every process in it is frozen. One that waits in the kernel for something uninterruptible can delay that. */
  async freeze(): Promise<void> {
    this.#alive();
    await freeze(this.#places);
  }

  async thaw(): Promise<void> {
    this.#alive();
    await thaw(this.#places);
  }

  /** Ends everything in and below it at once, frozen or not, and resolves when the last process is gone. The group stays. */
  async kill(): Promise<void> {
    this.#alive();
    this.#birth = undefined;
    this.#made = false;
    await killAll(mainOf(this.#places).directory).catch((error: unknown) => {
      throw error instanceof IsolationError ? error : cgroupError(error, 'kill the control group', mainOf(this.#places).directory);
    });
  }

  /** Waits until its last process has ended, then removes it, with groups that were made inside. Once it is gone this does nothing. */
  async delete(): Promise<void> {
    if (this.#deleted) return;
    await untilEmpty(mainOf(this.#places).directory);
    for (const { directory, above } of this.#places) {
      await removeTree(directory);
      await removeEmpty(above);
    }
    this.forget();
  }

  /** Kills everything in it and removes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#deleted) return;
    await this.kill();
    await this.delete();
  }

  /** @internal */
  get places(): readonly Place[] {
    this.#alive();
    return this.#places;
  }

  /** @internal Whether a child can be born in it: asked once, unless it has been killed since. */
  givesBirth(): Promise<boolean> {
    const v2 = v2Of(this.#places);
    if (!v2) return Promise.resolve(true);
    this.#birth ??= this.#made ? canBeBornInNew(v2.directory) : canBeBornIn(v2.directory);
    return this.#birth;
  }

  /** @internal It has been removed, or never been made. */
  forget(): void {
    this.#deleted = true;
    this.#sampling?.end();
    this.#files?.close();
    this.#watches.close();
    this.#devices.close();
  }

  #alive(): void {
    if (this.#deleted) throw new CgroupError('ERR_CLOISTER_DISPOSED', `the control group ${this.name} has been deleted`);
  }
}
