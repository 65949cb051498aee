import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { words } from './hierarchies.js';
import { mainOf, type Place } from './places.js';
import { cgroupError } from './refusal.js';

// The processes of a group: cgroup-v2.rst, "Processes".

export async function addMember(places: readonly Place[], pid: number): Promise<void> {
  for (const { directory } of places) {
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

export async function membersOf(places: readonly Place[]): Promise<number[]> {
  const path = join(mainOf(places).directory, 'cgroup.procs');
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw cgroupError(error, 'list the processes', path);
  });
  return words(text).map(Number);
}
