import { existsSync } from 'node:fs';
import { rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CgroupError } from '../errors.js';
import type { Reader } from './controllers/controller.js';
import { obtainable, parentIn } from './delegation.js';
import { type Hierarchy, hierarchies, readOptional, words } from './hierarchies.js';
import { type AnyController, controllers, devicesAreHere, hierarchyOf, type Limits, nameIn, nothingMounted } from './limits.js';
import { cgroupError } from './refusal.js';

// A group is one directory in each hierarchy that it is in.

export interface Place {
  readonly hierarchy: Hierarchy;
  readonly directory: string;
  /** Controllers that it has there. */
  readonly controllers: readonly string[];
  /** Groups between it and where groups are made, the topmost first. */
  readonly above: readonly string[];
}

export const v2Of = (places: readonly Place[]): Place | undefined => places.find(({ hierarchy }) => hierarchy.version === 'v2');

/** Where its processes are listed, and killed: v2, else the freezer's or any. */
export const mainOf = (places: readonly Place[]): Place =>
  v2Of(places) ?? places.find(({ hierarchy }) => hierarchy.controllers.includes('freezer')) ?? (places[0] as Place);

export function placeOf(places: readonly Place[], controller: AnyController): Place | undefined {
  return places.find(({ hierarchy, controllers: names }) => {
    if (controller.key === 'devices') return devicesAreHere(hierarchy);
    const name = nameIn(controller, hierarchy);
    return name !== undefined && names.includes(name);
  });
}

/** A group of this name below `parent`: a name of several components has groups between, which are made if they are not there. */
export function placeBelow(hierarchy: Hierarchy, parent: string, name: string, names: readonly string[]): Place {
  const parts = name.split('/').slice(0, -1);
  const above = parts.map((_, index) => join(parent, ...parts.slice(0, index + 1)));
  return { hierarchy, directory: join(parent, name), controllers: names, above };
}

export const namesOf = (controller: AnyController, hierarchy: Hierarchy): string[] => {
  const name = nameIn(controller, hierarchy);
  return name === undefined ? [] : [name];
};

/** A group that is made for itself has all that is to be had, whatever it is limited by now: `stats` and `update` want it. */
export async function placesFor(name: string, limits: Limits): Promise<Place[]> {
  const among = hierarchies();
  const places: Place[] = [];
  for (const { controller } of limits.entries) hierarchyOf(controller, among);
  for (const hierarchy of among.all) {
    const needed = limits.entries.flatMap(({ controller }) => (hierarchyOf(controller, among) === hierarchy ? namesOf(controller, hierarchy) : []));
    const isOurs = hierarchy.version === 'v2' || needed.length > 0 || hierarchy.controllers.some((each) => useful.has(each));
    if (!isOurs) continue;
    const names = [...new Set([...needed, ...obtainable(hierarchy)])];
    places.push(placeBelow(hierarchy, await parentIn(hierarchy, hierarchy.version === 'v2' ? names : []), name, names));
  }
  if (places.length === 0) throw nothingMounted();
  return places;
}

const useful: ReadonlySet<string> = new Set([...controllers.flatMap(({ v1 }) => (v1 === undefined ? [] : [v1])), 'cpuacct', 'freezer']);

const enabledBelow = (directory: string): string[] => words(readerOf(directory)('cgroup.subtree_control'));

/** What a group has: on v2 what its parent has enabled for it. */
export const controllersIn = ({ version, controllers: names }: Hierarchy, directory: string): string[] =>
  version === 'v1' ? [...names] : words(readerOf(directory)('cgroup.controllers'));

/** A child of a group: what that has, its children can have. On v2 it is made to hand it on. */
export async function placesBelow(parent: readonly Place[], parentName: string, name: string, limits: Limits): Promise<Place[]> {
  const places: Place[] = [];
  for (const { hierarchy, directory } of parent) {
    const names = controllersIn(hierarchy, directory);
    if (hierarchy.version === 'v2') {
      const off = names.filter((each) => !enabledBelow(directory).includes(each));
      if (off.length > 0) await enable(directory, off, limits, hierarchy);
    }
    const has = hierarchy.version === 'v2' ? enabledBelow(directory).filter((each) => names.includes(each)) : names;
    places.push(placeBelow(hierarchy, directory, name, has));
  }
  for (const { controller } of limits.entries) {
    const hierarchy = hierarchyOf(controller);
    const place = places.find((each) => each.hierarchy === hierarchy);
    if (!place || namesOf(controller, hierarchy).some((each) => !place.controllers.includes(each))) {
      throw new CgroupError(
        'ERR_CLOISTER_CGROUP_UNSUPPORTED',
        `the group ${parentName} does not have the controller ${nameIn(controller, hierarchy)}, so its children cannot`,
        {
          step: `limit ${controller.key as string}`,
          hint: 'A group has the controllers that its parent was made with.',
        },
      );
    }
  }
  return places;
}

async function enable(directory: string, names: readonly string[], limits: Limits, hierarchy: Hierarchy): Promise<void> {
  const path = join(directory, 'cgroup.subtree_control');
  try {
    await writeFile(path, names.map((name) => `+${name}`).join(' '));
  } catch (error) {
    // Without limits it is a group all the same.
    if (!limits.entries.some(({ controller }) => hierarchyOf(controller) === hierarchy && namesOf(controller, hierarchy).length > 0)) return;
    const busy = (error as NodeJS.ErrnoException).code === 'EBUSY';
    throw cgroupError(
      error,
      'enable controllers for children',
      path,
      busy ? 'the group has processes of its own, and a group of v2 has either processes or children with controllers' : undefined,
      busy ? 'Put its processes into a child of their own first.' : undefined,
    );
  }
}

/** Groups that this thread has made only because the name of another one has them in it. */
const between = new Set<string>();

/** They go with the last group below them. */
export async function removeEmpty(above: readonly string[]): Promise<void> {
  for (const directory of [...above].reverse()) {
    if (!between.has(directory)) continue;
    const left = await rmdir(directory).then(
      () => undefined,
      (error: NodeJS.ErrnoException) => error.code,
    );
    if (left === 'EBUSY') return;
    between.delete(directory);
  }
}

/** Remembers those of them that are not there yet, and will be made. */
export function rememberBetween(places: readonly Place[]): void {
  for (const { above } of places) for (const directory of above) if (!existsSync(directory)) between.add(directory);
}

export const readerOf =
  (directory: string): Reader =>
  (file) =>
    readOptional(join(directory, file))?.replace(/\n$/, '');
