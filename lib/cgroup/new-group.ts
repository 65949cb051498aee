import { existsSync } from 'node:fs';
import { optionError } from '../errors.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import { runPlan } from '../plan/run.js';
import { forgetParents } from './delegation.js';
import { loadProgram } from './device-limit.js';
import { removeTree } from './ending.js';
import type { Limits } from './limits.js';
import { addGroup, type Recipe } from './make.js';
import { type Place, rememberBetween, removeEmpty } from './places.js';

export function checkName(value: unknown, option: string): string {
  const parts = typeof value === 'string' ? value.split('/') : [];
  // kernfs refuses a newline (cgroup_mkdir); a leading 'cgroup.' is the kernel's own.
  const bad = (part: string): boolean =>
    part === '' || part === '.' || part === '..' || /[\0\n]/.test(part) || part.startsWith('cgroup.') || Buffer.byteLength(part) > 255;
  if (parts.length === 0 || parts.some(bad)) throw optionError(option, "one path component or several, such as 'judge/run-1', never '..'", value);
  return value as string;
}

/** A group by itself, not as a part of a spawn. All of it, or nothing. */
export async function makeGroup(places: readonly Place[], limits: Limits): Promise<Recipe> {
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
  return recipe;
}
