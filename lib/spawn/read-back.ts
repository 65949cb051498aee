import { readFileSync, statSync } from 'node:fs';
import { parseIdMap } from '../host/caller.js';
import { namespaceTypes } from '../namespace/flags.js';
import { profileOf } from '../security/apparmor.js';
import { capabilitiesOf } from '../security/capabilities.js';
import { contextOf, selinuxIsOn } from '../security/selinux.js';
import type { IsolationReceipt } from './types.js';

/**
 * The receipt as the kernel tells it of a living process: proc_pid_status(5), namespaces(7). What it does not show to us, and what it has
 * no file for (Landlock, the root), stays as it was made. The pid cannot be a stranger's: the caller has not reaped it.
 */
export function readBack(receipt: IsolationReceipt, pid: number): IsolationReceipt {
  const status = attempt(() => readFileSync(`/proc/${pid}/status`, 'latin1'));
  if (status === undefined) return receipt;
  const field = (name: string): string => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1] ?? '';
  const maps = attempt(() => (['uid', 'gid'] as const).map((kind) => parseIdMap(readFileSync(`/proc/${pid}/${kind}_map`, 'latin1'))));
  return {
    ...receipt,
    namespaces: namespacesOf(receipt.namespaces, pid),
    ...(receipt.idMap && maps?.[0]?.length ? { idMap: { uids: maps[0], gids: maps[1] ?? [] } } : {}),
    capabilities: capabilitiesOf(BigInt(`0x${field('CapEff')}`)),
    noNewPrivileges: field('NoNewPrivs') === '1',
    apparmor: profileOf(pid) ?? receipt.apparmor,
    selinux: selinuxIsOn() && (contextOf(pid) ?? receipt.selinux),
    seccomp: field('Seccomp') === '2' ? receipt.seccomp : false,
  };
}

const files = { cgroup: 'cgroup', ipc: 'ipc', mount: 'mnt', net: 'net', pid: 'pid', time: 'time', user: 'user', uts: 'uts' } as const;

function namespacesOf(planned: IsolationReceipt['namespaces'], pid: number): IsolationReceipt['namespaces'] {
  const inode = (who: number | 'self', file: string): bigint | undefined => attempt(() => statSync(`/proc/${who}/ns/${file}`, { bigint: true }).ino);
  const entries = namespaceTypes.map((type) => {
    const [own, its] = [inode('self', files[type]), inode(pid, files[type])];
    return [type, own !== undefined && own === its ? 'host' : planned[type]] as const;
  });
  return Object.fromEntries(entries) as unknown as IsolationReceipt['namespaces'];
}

/** It may end at any moment, and not all of it is ours to see. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
