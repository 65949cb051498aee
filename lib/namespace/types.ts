import type { RunOptions } from '../spawn/types.js';
import type { CgroupNamespace, IpcNamespace, MountNamespace, PidNamespace, TimeNamespace, UserNamespace, UtsNamespace } from './kinds.js';
import type { NetNamespace } from './net.js';

export type NamespaceType = 'cgroup' | 'ipc' | 'mount' | 'net' | 'pid' | 'time' | 'user' | 'uts';
export interface NamespaceByType {
  cgroup: CgroupNamespace;
  ipc: IpcNamespace;
  mount: MountNamespace;
  net: NetNamespace;
  pid: PidNamespace;
  time: TimeNamespace;
  user: UserNamespace;
  uts: UtsNamespace;
}
export interface NamespaceOptions {
  /** The user namespace that owns the new one. Default: the caller's, or for an ordinary user a new one of its own. */
  owner?: UserNamespace;
  idMap?: 'auto' | 'self' | IdMap;
  timeOffsets?: { monotonic?: number; boottime?: number };
}
export type NamespaceRunOptions = Pick<RunOptions, 'cwd' | 'env' | 'input' | 'encoding' | 'timeout' | 'outputLimit' | 'signal' | 'killSignal' | 'killGrace'>;
export interface Link {
  name: string;
  index: number;
  mac: string;
  mtu: number;
  up: boolean;
  addresses: readonly string[];
}
export interface IdMap {
  uids: readonly IdRange[];
  gids: readonly IdRange[];
}
export interface IdRange {
  inside: number;
  outside: number;
  count: number;
}
