// What is built has the shapes of the contract (promised.d.ts is a copy of it): each line is an assignment that must compile.
import * as built from 'cloister';
import type * as contract from './promised.js';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Equal<A, B>): void => {};
/** Whatever the one may be given, the other takes; and what it gives back, is what was promised. */
type Fits<Built extends Contract, Contract> = Built;

// Functions: the options of the contract are taken, the results are as promised.
declare const options: Omit<contract.SpawnOptions, 'rootfs' | 'namespaces' | 'network' | 'cgroup' | 'mounts'>;
const accepted: built.SpawnOptions = options;
export const result: Promise<contract.RunResult> = built.runIsolated('x', [], accepted as built.RunOptions & { encoding?: BufferEncoding });
export const process: contract.IsolatedProcess['exited'] = built.spawnIsolated('x').exited;
export const explained: Promise<contract.Explanation> = built.explain('x');
export const probed: Promise<contract.HostReport> = built.probe();
export const reaped: Promise<contract.ReapReport> = built.reap();

// Data: the same, member for member.
type Added = 'speculation' | 'coreScheduling' | 'apparmor' | 'selinux';
same<keyof built.SpawnOptions, keyof contract.SpawnOptions | Added>(true);
same<keyof built.RunOptions, keyof contract.RunOptions | Added>(true);
same<built.NamespaceType, contract.NamespaceType>(true);
same<built.IdMap, contract.IdMap>(true);
same<built.Rlimit, contract.Rlimit>(true);
same<built.Capability, contract.Capability>(true);
same<built.ResourceUsage, contract.ResourceUsage>(true);
same<built.IsolatedResult['reason'], contract.IsolatedResult['reason']>(true);
same<Omit<built.IsolationReceipt, 'apparmor' | 'selinux'>, contract.IsolationReceipt>(true);
same<built.CgroupLimits, contract.CgroupLimits>(true);
same<built.CgroupStats, contract.CgroupStats>(true);
same<built.Denial, contract.Denial>(true);
same<built.Change, contract.Change>(true);
same<built.SeccompProfile, contract.SeccompProfile>(true);
same<built.LandlockRules, contract.LandlockRules>(true);
same<built.StdioOption, contract.StdioOption>(true);
same<built.ImageConfig, contract.ImageConfig>(true);
same<built.Link, contract.Link>(true);

// Classes: an instance of ours is one of the contract's.
export type Error_ = Fits<built.IsolationError, contract.IsolationError>;
export type Namespace_ = Fits<built.Namespace, Omit<contract.Namespace, 'equals' | 'owner'>>;
export type Uts = Fits<built.UtsNamespace, Pick<contract.UtsNamespace, 'hostname' | 'setHostname'>>;
export type Net = Fits<built.NetNamespace, Pick<contract.NetNamespace, 'listen' | 'connect' | 'bindUdp' | 'links'>>;
export type User = Fits<built.UserNamespace, Pick<contract.UserNamespace, 'idMap'>>;
export type Root = Fits<
  built.OverlayRootfs,
  Pick<contract.OverlayRootfs, 'driver' | 'mount' | 'changes' | 'diff' | 'apply' | 'reset' | 'branches' | 'addBranch' | 'removeBranch'>
>;
export type CgroupError_ = Fits<built.CgroupError, contract.CgroupError>;
export const errors: readonly (new (...args: never[]) => contract.IsolationError)[] = [
  built.IsolationError,
  built.CgroupError,
  built.ImageError,
  built.NetworkError,
];

// Statics.
export const create: (type: 'uts', options?: { idMap?: 'auto' | 'self' | contract.IdMap }) => Promise<built.UtsNamespace> = built.Namespace.create;
export const hosted: (options?: { hide?: readonly string[]; size?: contract.Bytes }) => Promise<built.OverlayRootfs> = built.OverlayRootfs.host;
