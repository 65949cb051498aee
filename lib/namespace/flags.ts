import * as k from '../plan/constants.js';
import type { NamespaceType } from './types.js';

/** The flag of clone(2) and setns(2) of each kind; namespaces(7). */
export const namespaceFlags: Readonly<Record<NamespaceType, number>> = {
  cgroup: k.CLONE_NEWCGROUP,
  ipc: k.CLONE_NEWIPC,
  mount: k.CLONE_NEWNS,
  net: k.CLONE_NEWNET,
  pid: k.CLONE_NEWPID,
  time: k.CLONE_NEWTIME,
  user: k.CLONE_NEWUSER,
  uts: k.CLONE_NEWUTS,
};

export const namespaceTypes = Object.keys(namespaceFlags) as readonly NamespaceType[];

/** The names that /proc/PID/ns uses. */
export const namespaceFiles: Readonly<Record<NamespaceType, string>> = {
  cgroup: 'cgroup',
  ipc: 'ipc',
  mount: 'mnt',
  net: 'net',
  pid: 'pid',
  time: 'time',
  user: 'user',
  uts: 'uts',
};
