import { removeAllOrphans } from '../cgroup/orphans.js';
import { removeNetworkOrphans } from '../network/orphans.js';
import { removeDeadUppers } from '../rootfs/disk-upper.js';
import type { ReapReport } from './types.js';

/**
 * Takes away what dead processes of this library left: their control groups, with what still runs in them, the writable layers of
 * roots with `upper: 'disk'`; bridges, links and packet filters. The next group that is made in the same place, the next such root and the
 * next bridge do the same, unasked. Needs the right to remove them; what is not ours to remove stays.
 */
export async function reap(): Promise<ReapReport> {
  // First what may still use the others.
  const groups = await removeAllOrphans();
  return { removed: [...groups, ...(await removeDeadUppers()), ...(await removeNetworkOrphans())] };
}
