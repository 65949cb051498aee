import { EventEmitter } from 'node:events';
import { existsSync, realpathSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { CgroupError, IsolationError, optionError } from '../errors.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import { runPlan } from '../plan/run.js';
import * as check from '../spawn/validate.js';
import { canBeBornIn, canBeBornInNew } from './birth.js';
import type { Rule } from './controllers/devices.js';
import { forgetParents, parentIn, support } from './delegation.js';
import { killAll, removeTree, untilEmpty } from './ending.js';
import { watchEvent } from './events.js';
import { freeze, thaw } from './freezer.js';
import { hierarchies, words } from './hierarchies.js';
import { type AnyController, checkLimits, controllers, hierarchyOf, type Limits, nameIn, noLimits, writesIn } from './limits.js';
import { addGroup, addWrites, devicesAreHere, loadProgram, type Recipe } from './make.js';
import { ownedName } from './owner-name.js';
import { controllersIn, type Place, placeBelow, placesBelow, placesFor, readerOf, rememberBetween, removeEmpty } from './places.js';
import { triggerOf, watchPressure } from './pressure.js';
import { cgroupError } from './refusal.js';
import { StatFiles } from './stats.js';
import type { CgroupEvents, CgroupLimits, CgroupLimitsNow, CgroupStats, CgroupSupport, DeviceRule } from './types.js';

const events = ['oom', 'memory-high', 'pids-max', 'empty'] as const;

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
  readonly #watching = new Map<string, () => void>();
  readonly #triggers = new Set<() => void>();
  #files: StatFiles | undefined;
  #devices: readonly Rule[] | undefined;
  #program = -1;
  #deleted = false;
  /** Ends the pauses of `watch`. */
  readonly #pauses = new Set<() => void>();
  /** By us, and not killed since. */
  #made: boolean;
  #birth: Promise<boolean> | undefined;

  /** @internal A group that exists, or that a plan is about to make. */
  constructor(name: string, places: readonly Place[], recipe?: Recipe) {
    super();
    this.name = name;
    this.#places = [...places];
    this.#devices = recipe?.limits.devices;
    this.#program = recipe?.program ?? -1;
    this.#made = recipe !== undefined;
    onListeners(this as EventEmitter, (event, count) => (count > 0 ? this.#watch(event) : this.#unwatch(event)));
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
    const directory = realPath(check.absolutePath(path, 'path'));
    const { all } = hierarchies();
    const home = all
      .filter(({ mountpoint }) => directory === mountpoint || directory?.startsWith(`${mountpoint}/`))
      .sort((a, b) => b.mountpoint.length - a.mountpoint.length)[0];
    if (!home || directory === undefined || !existsSync(join(directory, 'cgroup.procs'))) {
      throw new CgroupError('ERR_CLOISTER_CGROUP', `ENOENT: ${path} is no control group`, {
        step: 'open the control group',
        path,
        hint: `Groups are directories below ${all.map(({ mountpoint }) => mountpoint).join(', ') || '/sys/fs/cgroup, where nothing is mounted'}.`,
      });
    }
    // Below our own group, which can be elsewhere in each hierarchy, or else from the top.
    const isOurs = directory.startsWith(`${home.home}/`);
    const name = relative(isOurs ? home.home : home.mountpoint, directory);
    const places = all.flatMap((hierarchy): Place[] => {
      const there = hierarchy === home ? directory : join(isOurs ? hierarchy.home : hierarchy.mountpoint, name);
      return existsSync(join(there, 'cgroup.procs')) ? [{ hierarchy, directory: there, controllers: controllersIn(hierarchy, there), above: [] }] : [];
    });
    return new Cgroup(name, places);
  }

  /** What this host has, and where this process may make groups. Changes nothing. */
  static async support(): Promise<CgroupSupport> {
    return support();
  }

  static async #make(name: string, limits: Limits, parent: Cgroup | undefined): Promise<Cgroup> {
    const places = parent ? await placesBelow(parent.places, parent.name, name, limits) : await placesFor(name, limits);
    const recipe: Recipe = { places, limits, program: loadProgram(places, limits) };
    // What somebody else has there is not ours to take away if it fails; it may be in one hierarchy only.
    const ours = places.filter(({ directory }) => !existsSync(directory));
    try {
      const plan = new PlanBuilder().in('parent');
      addGroup(plan, recipe);
      rememberBetween(places);
      await runPlan(plan);
    } catch (error) {
      for (const { directory, above } of ours) {
        await removeTree(directory).then(
          () => removeEmpty(above),
          () => {},
        );
      }
      if (recipe.program >= 0) native().close(recipe.program);
      forgetParents();
      throw error;
    }
    return new Cgroup(name, places, recipe);
  }

  /** Controllers are enabled for it on v2, which needs this group to have no processes of its own. */
  async child(name: string, limits: CgroupLimits = {}): Promise<Cgroup> {
    return Cgroup.#make(checkName(name, 'name'), checkLimits(limits, 'limits'), this);
  }

  /** Moves a process, with all its threads, into it. */
  async add(pid: number): Promise<void> {
    check.integer(pid, 'pid', 1, 2 ** 22);
    this.#alive();
    for (const { directory } of this.#places) {
      const path = join(directory, 'cgroup.procs');
      await writeFile(path, String(pid)).catch((error: unknown) => {
        throw cgroupError(
          error,
          'move a process into the control group',
          path,
          (error as NodeJS.ErrnoException).code === 'ESRCH' ? `there is no process ${pid}` : undefined,
        );
      });
    }
  }

  /** Their ids as this process sees them; not those in children of the group. */
  async processes(): Promise<number[]> {
    this.#alive();
    const path = join(this.#main.directory, 'cgroup.procs');
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      throw cgroupError(error, 'list the processes', path);
    });
    return words(text).map(Number);
  }

  /** As they are in force now. `devices` of a v2 group that was opened, not made here, are not known: a program decides about them. */
  async limits(): Promise<CgroupLimitsNow> {
    this.#alive();
    const result: Record<string, unknown> = {};
    for (const controller of controllers) {
      const place = this.#placeOf(controller);
      if (!place) continue;
      const now =
        place.hierarchy.version === 'v2' && controller.key === 'devices'
          ? this.#devices?.map(plain)
          : controller.limits(place.hierarchy.version, readerOf(place.directory));
      if (now === undefined) continue;
      const { key } = controller;
      // net_cls and net_prio have one part each.
      if (key === 'network' && result[key]) {
        const { classId } = result[key] as NonNullable<CgroupLimitsNow['network']>;
        result[key] = { ...(now as object), classId };
      } else result[key as string] = now;
    }
    return result as CgroupLimitsNow;
  }

  /** Changes what is named, and nothing else; 'max' lifts a limit. Devices are replaced as a whole, in one step on v2. */
  async update(limits: CgroupLimits): Promise<void> {
    const checked = checkLimits(limits, 'limits');
    this.#alive();
    await this.#acquire(checked);
    const plan = new PlanBuilder().in('parent');
    for (const { hierarchy, directory } of this.#places) {
      addWrites(plan, directory, writesIn(hierarchy, checked, readerOf(directory)));
    }
    await runPlan(plan);
    if (checked.devices) this.#replaceDevices(checked.devices);
  }

  /** A group of v1 that has not needed a hierarchy until now: its processes join it while they are frozen, so that none is left behind. */
  async #acquire(limits: Limits): Promise<void> {
    const lacking = limits.entries.filter(({ controller }) => !this.#placeOf(controller));
    if (lacking.length === 0) return;
    const v2 = this.#v2;
    const additions: Place[] = [];
    for (const { controller } of lacking) {
      const hierarchy = hierarchyOf(controller);
      if (hierarchy.version === 'v2' || !v2) {
        throw new CgroupError('ERR_CLOISTER_CGROUP_UNSUPPORTED', `the group ${this.name} was made without the controller ${nameIn(controller, hierarchy)}`, {
          step: `limit ${controller.key as string}`,
          hint: `Name ${controller.key as string} among the limits that it is made with ('max' for none).`,
        });
      }
      if (!additions.some((place) => place.hierarchy === hierarchy)) {
        additions.push(placeBelow(hierarchy, await parentIn(hierarchy, []), this.name, controllersIn(hierarchy, '')));
      }
    }
    const plan = new PlanBuilder().in('parent');
    addGroup(plan, { places: additions, limits: noLimits, program: -1 });
    await runPlan(plan);
    this.#places.push(...additions);
    await this.freeze();
    try {
      for (const pid of await this.processes())
        for (const { directory } of additions) await writeFile(join(directory, 'cgroup.procs'), String(pid)).catch(ignoreGone);
    } finally {
      await this.thaw();
    }
  }

  #replaceDevices(rules: readonly Rule[]): void {
    this.#devices = rules;
    const v2 = this.#v2;
    if (!v2 || !devicesAreHere(v2.hierarchy)) return;
    const program = loadProgram([v2], { entries: [], devices: rules });
    const group = native().openFile(v2.directory);
    const attached = group < 0 ? group : native().attachDeviceProgram(group, program, this.#program);
    if (group >= 0) native().close(group);
    if (attached < 0) {
      native().close(program);
      throw CgroupError.ofErrno('ERR_CLOISTER_CGROUP', attached, { syscall: 'bpf', path: v2.directory, step: 'limit devices' });
    }
    if (this.#program >= 0) native().close(this.#program);
    this.#program = program;
  }

  /** All counters, in one reading of descriptors that are kept open; microseconds and bytes. */
  async stats(): Promise<CgroupStats> {
    this.#alive();
    this.#files ??= new StatFiles(this.#places);
    return this.#files.read();
  }

  /** Samples until the loop is left, `signal` aborts or the group is deleted. `at` is performance.now(). */
  async *watch(options: { intervalMs?: number; signal?: AbortSignal } = {}): AsyncGenerator<CgroupStats & { at: number }, void, void> {
    check.onlyKeys(check.record(options, 'options'), '', ['intervalMs', 'signal']);
    const interval = options.intervalMs === undefined ? 1000 : check.milliseconds(options.intervalMs, 'intervalMs');
    const { signal } = options;
    if (signal !== undefined && !(signal instanceof AbortSignal)) throw optionError('signal', 'an AbortSignal', signal);
    for (let next = performance.now(); !this.#deleted && !signal?.aborted; ) {
      yield Object.assign(await this.stats(), { at: performance.now() });
      // Those that were missed are left out, and not made up for.
      next = Math.max(next + interval, performance.now());
      await this.#pause(next - performance.now(), signal);
    }
  }

  /** Until then, the signal, or the end of the group. */
  #pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', end);
        this.#pauses.delete(end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      signal?.addEventListener('abort', end, { once: true });
      this.#pauses.add(end);
    });
  }

  /**
   * The event 'pressure' each time that tasks in it were stalled for `stallMs` within `windowMs` (500 to 10,000; without CAP_SYS_RESOURCE
   * whole multiples of 2,000), until the result is disposed. Needs v2, also beside v1. Documentation/accounting/psi.rst.
   */
  async onPressure(resource: 'cpu' | 'memory' | 'io', options: { kind?: 'some' | 'full'; stallMs: number; windowMs: number }): Promise<Disposable> {
    const trigger = triggerOf(resource, options);
    this.#alive();
    const close = watchPressure(this.#places, trigger, () => this.emit('pressure', { resource }));
    this.#triggers.add(close);
    return {
      [Symbol.dispose]: () => {
        if (this.#triggers.delete(close)) close();
      },
    };
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
    await killAll(this.#main.directory).catch((error: unknown) => {
      throw error instanceof IsolationError ? error : cgroupError(error, 'kill the control group', this.#main.directory);
    });
  }

  /** Waits until its last process has ended, then removes it, with groups that were made inside. Once it is gone this does nothing. */
  async delete(): Promise<void> {
    if (this.#deleted) return;
    await untilEmpty(this.#main.directory);
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
    const v2 = this.#v2;
    if (!v2) return Promise.resolve(true);
    this.#birth ??= this.#made ? canBeBornInNew(v2.directory) : canBeBornIn(v2.directory);
    return this.#birth;
  }

  /** @internal It has been removed, or never been made. */
  forget(): void {
    this.#deleted = true;
    for (const end of this.#pauses) end();
    this.#files?.close();
    for (const close of [...this.#watching.values(), ...this.#triggers]) close();
    this.#watching.clear();
    this.#triggers.clear();
    if (this.#program >= 0) native().close(this.#program);
    this.#program = -1;
  }

  get #v2(): Place | undefined {
    return this.#places.find(({ hierarchy }) => hierarchy.version === 'v2');
  }

  /** Where its processes are listed, and killed: v2, else the freezer's or any. */
  get #main(): Place {
    return this.#v2 ?? this.#places.find(({ hierarchy }) => hierarchy.controllers.includes('freezer')) ?? (this.#places[0] as Place);
  }

  #placeOf(controller: AnyController): Place | undefined {
    return this.#places.find(({ hierarchy, controllers: names }) => {
      if (controller.key === 'devices') return devicesAreHere(hierarchy);
      const name = nameIn(controller, hierarchy);
      return name !== undefined && names.includes(name);
    });
  }

  #alive(): void {
    if (this.#deleted) throw new CgroupError('ERR_CLOISTER_DISPOSED', `the control group ${this.name} has been deleted`);
  }

  #watch(event: string): void {
    if (this.#deleted || this.#watching.has(event) || !(events as readonly string[]).includes(event)) return;
    const close = watchEvent(event as (typeof events)[number], this.#places, (name, ...args) => (this as EventEmitter).emit(name, ...args));
    if (close) this.#watching.set(event, close);
  }

  #unwatch(event: string): void {
    this.#watching.get(event)?.();
    this.#watching.delete(event);
  }
}

function checkName(value: unknown, option: string): string {
  const parts = typeof value === 'string' ? value.split('/') : [];
  // kernfs refuses a newline (cgroup_mkdir); a leading 'cgroup.' is the kernel's own.
  const bad = (part: string): boolean =>
    part === '' || part === '.' || part === '..' || /[\0\n]/.test(part) || part.startsWith('cgroup.') || Buffer.byteLength(part) > 255;
  if (parts.length === 0 || parts.some(bad)) throw optionError(option, "one path component or several, such as 'judge/run-1', never '..'", value);
  return value as string;
}

function plain({ allow, type, major, minor, access }: Rule): DeviceRule {
  return { allow, type, ...(major === undefined ? {} : { major }), ...(minor === undefined ? {} : { minor }), access };
}

/** Tells how many listen to an event when that changes; the types of an emitter leave Node's own events out. */
function onListeners(emitter: EventEmitter, changed: (event: string, count: number) => void): void {
  emitter.on('newListener', (event: string) => changed(event, emitter.listenerCount(event) + 1));
  emitter.on('removeListener', (event: string) => changed(event, emitter.listenerCount(event)));
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

const ignoreGone = (error: NodeJS.ErrnoException): void => {
  if (error.code !== 'ESRCH') throw error;
};
