import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CgroupError } from '../errors.js';
import { untilFile, untilFrozenV1 } from './ending.js';
import { type Place, v2Of } from './places.js';
import { cgroupError } from './refusal.js';

// cgroup-v2.rst, "cgroup.freeze"; cgroup-v1/freezer-subsystem.rst, where there is no v2 beside it.

export async function freeze(places: readonly Place[]): Promise<void> {
  const v2 = v2Of(places);
  if (!v2) {
    const file = freezerOf(places);
    await put('freeze', file, 'FROZEN');
    await untilFrozenV1(file);
    return;
  }
  await put('freeze', join(v2.directory, 'cgroup.freeze'), '1');
  try {
    await untilFile(join(v2.directory, 'cgroup.events'), (text) => text.includes('frozen 1'));
  } catch (error) {
    await thaw(places);
    throw error;
  }
}

export async function thaw(places: readonly Place[]): Promise<void> {
  const v2 = v2Of(places);
  if (!v2) return put('thaw', freezerOf(places), 'THAWED');
  await put('thaw', join(v2.directory, 'cgroup.freeze'), '0');
  await untilFile(join(v2.directory, 'cgroup.events'), (text) => text.includes('frozen 0'));
}

function freezerOf(places: readonly Place[]): string {
  const place = places.find(({ hierarchy }) => hierarchy.controllers.includes('freezer'));
  if (place) return join(place.directory, 'freezer.state');
  throw new CgroupError('ERR_CLOISTER_CGROUP_UNSUPPORTED', 'neither cgroup v2 nor the freezer of v1 is mounted here', { step: 'freeze the control group' });
}

async function put(what: string, path: string, text: string): Promise<void> {
  await writeFile(path, text).catch((error: unknown) => {
    throw cgroupError(error, `${what} the control group`, path);
  });
}
