import { existsSync, realpathSync } from 'node:fs';
import { join, relative } from 'node:path';
import { CgroupError } from '../errors.js';
import { hierarchies } from './hierarchies.js';
import { controllersIn, type Place } from './places.js';

/** A group that is there, by its directory in any hierarchy: in the others it is where that has the same path. */
export function existingGroup(path: string): { name: string; places: Place[] } {
  const directory = realPath(path);
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
  return { name, places };
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}
