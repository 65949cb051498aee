import { dirname, join } from 'node:path';
import { checked, native } from '../native.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot, type Step } from '../plan/steps.js';
import type { Write } from './controllers/controller.js';
import { cpuset } from './controllers/cpuset.js';
import { parentIn } from './delegation.js';
import { loadProgram } from './device-limit.js';
import { type Hierarchy, hierarchies } from './hierarchies.js';
import { hierarchyOf, type Limits, nothingMounted, writesIn } from './limits.js';
import { namesOf, type Place, placeBelow, readerOf } from './places.js';

// A group is one directory in each hierarchy that it needs: the steps that make it, and those by which a child enters it.

/** A group that does not exist yet. */
export interface Recipe {
  readonly places: readonly Place[];
  readonly limits: Limits;
  /** Decides about devices on v2; a descriptor that is kept, as another program can replace it only by naming it. -1: none. */
  readonly program: number;
}

/** Only the hierarchies that the limits need, as each costs 15 to 30 µs; and v2 wherever it is: by it a group is killed, frozen and watched. */
export async function recipeFor(name: string, limits: Limits): Promise<Recipe> {
  const wanted = new Map<Hierarchy, string[]>();
  const among = hierarchies();
  // v1 alone: the freezer is how it is killed, cpuacct has its processor time.
  if (!among.v2)
    for (const name of ['freezer', 'cpuacct']) for (const hierarchy of among.all) if (hierarchy.controllers.includes(name)) wanted.set(hierarchy, [name]);
  for (const { controller } of limits.entries) {
    const hierarchy = hierarchyOf(controller, among);
    wanted.set(hierarchy, [...(wanted.get(hierarchy) ?? []), ...namesOf(controller, hierarchy)]);
  }
  if (among.v2 && !wanted.has(among.v2)) wanted.set(among.v2, []);
  if (wanted.size === 0) throw nothingMounted();
  const places: Place[] = [];
  for (const [hierarchy, names] of wanted) places.push(placeBelow(hierarchy, await parentIn(hierarchy, names), name, names));
  return { places, limits, program: loadProgram(places, limits) };
}

/** All that it takes in the current section of the plan: directories, limits, and the device program. */
export function addGroup(plan: PlanBuilder, { places, limits, program }: Recipe): void {
  for (const { hierarchy, directory, controllers: names, above } of places) {
    for (const parent of above) {
      plan.label('make a control group', parent).add('mkdirat', [cwd, parent, 0o755], { tolerate: [k.EEXIST] });
      addWrites(plan, parent, hierarchy.version === 'v1' ? preparations(hierarchy, dirname(parent)) : enabling(names));
    }
    plan.label('make a control group', directory).add('mkdirat', [cwd, directory, 0o755]);
    if (hierarchy.version === 'v1') addWrites(plan, directory, preparations(hierarchy, dirname(directory)));
    addWrites(
      plan,
      directory,
      writesIn(hierarchy, limits, () => undefined),
    );
    if (program >= 0 && hierarchy.version === 'v2') {
      plan.label('limit devices', directory);
      const slot = plan.slot('device program', checked(native().duplicate(program, 64), 'fcntl', 'limit devices'));
      plan.add('attach_device_program', [openGroup(plan, directory), slot]);
    }
  }
}

/** cgroup-v2.rst, "Enabling and Disabling": what a group of v2 hands on to its children. */
const enabling = (names: readonly string[]): Write[] =>
  names.length === 0 ? [] : [{ file: 'cgroup.subtree_control', text: names.map((name) => `+${name}`).join(' ') }];

const preparations = ({ controllers: names }: Hierarchy, parent: string): Write[] =>
  names.includes('cpuset') ? (cpuset.prepare?.(readerOf(parent)) ?? []) : [];

export function addWrites(plan: PlanBuilder, directory: string, writes: readonly Write[]): void {
  for (const { file, text, otherwise } of writes) {
    const path = join(directory, file);
    plan.label(`set ${file} to ${text}`, path);
    const slot = plan.slot(file);
    const open = (at: string, tolerate: number[]): Step => plan.add('openat', [cwd, at, k.O_WRONLY | k.O_CLOEXEC, 0], { out: slot, tolerate });
    const first = open(path, otherwise === undefined ? [] : [k.ENOENT]);
    if (otherwise !== undefined) plan.unless(first, 'done', () => void open(join(directory, otherwise), []));
    plan.add('write', [slot, Buffer.from(text)]);
    plan.release(slot);
  }
}

function openGroup(plan: PlanBuilder, directory: string): Slot {
  return plan.open('control group', 'openat', [cwd, directory, k.O_RDONLY | k.O_DIRECTORY | k.O_CLOEXEC, 0]);
}

/**
 * The child is born in the v2 group, unless it `movesItself` (birth.ts). Groups of v1 it enters itself, through files that we open (who
 * opened them decides about the right, cgroup_procs_write_permission), by the steps that are returned.
 */
export function enterGroup(plan: PlanBuilder, places: readonly Place[], movesItself: boolean): () => void {
  const entrances: { slot: Slot; path: string }[] = [];
  for (const { hierarchy, directory } of places) {
    if (hierarchy.version === 'v2' && !movesItself) {
      plan.label('enter the control group', directory);
      plan.cgroupSlot = openGroup(plan, directory);
      plan.cgroupPath = directory;
      continue;
    }
    // Not cgroup.procs, though the child has one thread only: whoever moves a thread group takes cgroup_threadgroup_rwsem for writing,
    // which costs an RCU grace period, 10 ms on a quiet machine; a thread that moves itself does not (cgroup_procs_write_start). v2 lets
    // threads leave their process's group only where that is threaded.
    const file = hierarchy.version === 'v1' ? 'tasks' : 'cgroup.procs';
    const path = join(directory, file);
    plan.label('enter the control group', path);
    entrances.push({ slot: plan.open(file, 'openat', [cwd, path, k.O_WRONLY | k.O_CLOEXEC, 0]), path });
  }
  return () => {
    // 0 is the writer (cgroup_procs_write_start), in whatever pid namespace it is.
    for (const { slot, path } of entrances) plan.label('enter the control group', path).add('write', [slot, zero]);
  };
}

const zero = Buffer.from('0');

/** Gives it to an owner, who may then make groups below it: cgroup-v2.rst, "Model of Delegation". */
export function delegateGroup(plan: PlanBuilder, places: readonly Place[], owner: { uid: number; gid: number }): void {
  for (const { hierarchy, directory } of places) {
    const files = hierarchy.version === 'v2' ? ['cgroup.procs', 'cgroup.subtree_control', 'cgroup.threads'] : ['cgroup.procs', 'tasks'];
    plan.label('delegate the control group', directory).add('fchownat', [cwd, directory, owner.uid, owner.gid, 0]);
    for (const file of files) {
      const path = join(directory, file);
      plan.label('delegate the control group', path).add('fchownat', [cwd, path, owner.uid, owner.gid, 0], { tolerate: [k.ENOENT] });
    }
  }
}
