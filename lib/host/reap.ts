import { removeAllOrphans } from '../cgroup/orphans.js';
import { removeNetworkOrphans } from '../network/orphans.js';
import type { ReapReport } from './types.js';

/**
 * Takes away what dead processes of this library left: their control groups, with what still runs in them; bridges, links and packet
 * filters. The next group that is made in the same place, or the next bridge, does the same, unasked. Needs the right to remove them;
 * what is not ours to remove stays.
 */
export async function reap(): Promise<ReapReport> {
  return { removed: [...(await removeAllOrphans()), ...(await removeNetworkOrphans())] };
}
