import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CgroupError } from '../errors.js';
import { PlanBuilder } from '../plan/builder.js';
import { runPlan } from '../plan/run.js';
import { parentIn } from './delegation.js';
import { freeze, thaw } from './freezer.js';
import { hierarchyOf, type Limits, nameIn, noLimits, writesIn } from './limits.js';
import { addGroup, addWrites } from './make.js';
import { membersOf } from './members.js';
import { controllersIn, type Place, placeBelow, placeOf, readerOf, v2Of } from './places.js';

/** Changes what is named, and nothing else; of devices only those of v1. The group's `places` become more if it needs another hierarchy. */
export async function update(name: string, places: Place[], limits: Limits): Promise<void> {
  await acquire(name, places, limits);
  const plan = new PlanBuilder().in('parent');
  for (const { hierarchy, directory } of places) {
    addWrites(plan, directory, writesIn(hierarchy, limits, readerOf(directory)));
  }
  await runPlan(plan);
}

/** A group of v1 that has not needed a hierarchy until now: its processes join it while they are frozen, so that none is left behind. */
async function acquire(name: string, places: Place[], limits: Limits): Promise<void> {
  const lacking = limits.entries.filter(({ controller }) => !placeOf(places, controller));
  if (lacking.length === 0) return;
  const v2 = v2Of(places);
  const additions: Place[] = [];
  for (const { controller } of lacking) {
    const hierarchy = hierarchyOf(controller);
    if (hierarchy.version === 'v2' || !v2) {
      throw new CgroupError('ERR_CLOISTER_CGROUP_UNSUPPORTED', `the group ${name} was made without the controller ${nameIn(controller, hierarchy)}`, {
        step: `limit ${controller.key as string}`,
        hint: `Name ${controller.key as string} among the limits that it is made with ('max' for none).`,
      });
    }
    if (!additions.some((place) => place.hierarchy === hierarchy)) {
      additions.push(placeBelow(hierarchy, await parentIn(hierarchy, []), name, controllersIn(hierarchy, '')));
    }
  }
  const plan = new PlanBuilder().in('parent');
  addGroup(plan, { places: additions, limits: noLimits, program: -1 });
  await runPlan(plan);
  places.push(...additions);
  await freeze(places);
  try {
    for (const pid of await membersOf(places))
      for (const { directory } of additions) await writeFile(join(directory, 'cgroup.procs'), String(pid)).catch(ignoreGone);
  } finally {
    await thaw(places);
  }
}

const ignoreGone = (error: NodeJS.ErrnoException): void => {
  if (error.code !== 'ESRCH') throw error;
};
