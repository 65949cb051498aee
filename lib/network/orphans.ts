import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { orphanOf } from '../cgroup/owner-name.js';
import { hostsDirectory } from './hosts.js';
import { deleteLink, listLinks } from './netlink/link.js';
import { commit, deleteTable, listTables } from './netlink/nftables.js';
import { NetlinkSocket } from './netlink/socket.js';

export interface RemovedNetwork {
  readonly kind: 'link' | 'packet filter' | 'names';
  readonly name: string;
  readonly ownerPid: number;
}

/**
 * What processes that were killed have left in this network: bridges, ends of pairs, packet filters. Nothing for who may not look; what
 * somebody else removes meanwhile is gone, too.
 */
export async function removeNetworkOrphans(): Promise<RemovedNetwork[]> {
  return [...(await removeLinks().catch(() => [])), ...(await removeFilters().catch(() => [])), ...(await removeNames().catch(() => []))];
}

async function removeLinks(): Promise<RemovedNetwork[]> {
  using route = await NetlinkSocket.open('route');
  const removed: RemovedNetwork[] = [];
  for (const { index, name, alias } of await listLinks(route)) {
    const orphan = alias === undefined ? undefined : orphanOf(alias);
    if (!orphan) continue;
    const done = await route.request(deleteLink(index)).then(
      () => true,
      () => false,
    );
    if (done) removed.push({ kind: 'link', name, ownerPid: orphan.ownerPid });
  }
  return removed;
}

async function removeFilters(): Promise<RemovedNetwork[]> {
  using filter = await NetlinkSocket.open('netfilter');
  const removed: RemovedNetwork[] = [];
  for (const table of await listTables(filter)) {
    const orphan = orphanOf(table.name);
    if (!orphan) continue;
    const done = await commit(filter, [deleteTable(table)]).then(
      () => true,
      () => false,
    );
    if (done) removed.push({ kind: 'packet filter', name: table.name, ownerPid: orphan.ownerPid });
  }
  return removed;
}

async function removeNames(): Promise<RemovedNetwork[]> {
  const removed: RemovedNetwork[] = [];
  for (const name of await readdir(hostsDirectory)) {
    const orphan = orphanOf(name);
    if (!orphan) continue;
    await rm(join(hostsDirectory, name), { recursive: true, force: true });
    removed.push({ kind: 'names', name, ownerPid: orphan.ownerPid });
  }
  return removed;
}
