import { removeAllOrphans } from '../cgroup/orphans.js';
import { removeDeadUppers } from '../rootfs/disk-upper.js';
import type { ReapReport } from './types.js';

/**
 * Takes away what dead processes of this library left: their control groups, with what still runs in them, and the writable layers of
 * roots with `upper: 'disk'`. The next group that is made in the same place, and the next such root, does the same, unasked. Needs the right to
 * remove them; what is not ours to remove stays.
 */
export async function reap(): Promise<ReapReport> {
  // First what may still write to the other.
  const groups = await removeAllOrphans();
  return { removed: [...groups, ...(await removeDeadUppers())] };
}
