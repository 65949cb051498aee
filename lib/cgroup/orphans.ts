import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { killAll, removeTree } from './ending.js';
import { hierarchies, readOptional } from './hierarchies.js';
import { orphanOf } from './owner-name.js';

export interface RemovedGroup {
  readonly kind: 'cgroup';
  readonly name: string;
  readonly ownerPid: number;
}

/** Groups in `parent` whose owner was killed before it could remove them: what still runs in them dies. */
export async function removeOrphans(parent: string): Promise<RemovedGroup[]> {
  const removed: RemovedGroup[] = [];
  for (const entry of await readdir(parent, { withFileTypes: true }).catch(() => [])) {
    const orphan = entry.isDirectory() ? orphanOf(entry.name) : undefined;
    if (!orphan) continue;
    const directory = join(parent, entry.name);
    if (orphan.detached && readOptional(join(directory, 'cgroup.procs')) !== '') continue;
    try {
      await killAll(directory);
      await removeTree(directory);
      removed.push({ kind: 'cgroup', name: basename(directory), ownerPid: orphan.ownerPid });
    } catch {
      // Another process of ours may be at it, or it is not ours to remove: the next one will see.
    }
  }
  return removed;
}

/** In every hierarchy, below our own group and those above it. */
export async function removeAllOrphans(): Promise<RemovedGroup[]> {
  // A group has the same name in each hierarchy that it is in.
  const removed = new Map<string, RemovedGroup>();
  for (const { home, mountpoint } of hierarchies().all) {
    for (let directory = home; ; directory = join(directory, '..')) {
      for (const group of await removeOrphans(directory)) removed.set(group.name, group);
      if (directory === mountpoint || directory === '/') break;
    }
  }
  return [...removed.values()];
}
