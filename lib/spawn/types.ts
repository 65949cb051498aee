// The public shapes of spawning; semantics are in docs/.
import type { EventEmitter } from 'node:events';
import type { Duplex, Readable, Stream, Writable } from 'node:stream';
import type { Cgroup } from '../cgroup/cgroup.js';
import type { CgroupLimits, CgroupStats, CgroupSupport } from '../cgroup/types.js';
import type { IsolationError } from '../errors.js';
import type { Image } from '../image/image.js';
import type { NetNamespace } from '../namespace/net.js';
import type { IdMap, NamespaceByType, NamespaceType } from '../namespace/types.js';
import type { NetworkOptions } from '../network/types.js';
import type { OverlayRootfs } from '../rootfs/overlay-rootfs.js';
import type { AppArmorProfile, Capability, LandlockRules, Rlimit, SeccompNotify, SeccompProfile, SelinuxLabels, Speculation } from '../security/types.js';
import type { Bytes } from '../units.js';

export type StdioOption = 'pipe' | 'ignore' | 'inherit' | number | Stream | null | undefined;
type Nth<S, N extends 0 | 1 | 2> = S extends readonly unknown[] ? (S[N] extends undefined ? 'pipe' : S[N]) : S;
type At<O, N extends 0 | 1 | 2> = 'stdio' extends keyof O
  ? Nth<O['stdio'], N>
  : 'tty' extends keyof O
    ? N extends 2
      ? O['tty'] extends true | object
        ? 'ignore'
        : 'pipe' | 'ignore'
      : 'pipe'
    : 'pipe';
type Pipe<T, S> = S extends 'pipe' | null | undefined ? T : null;
type Started<O> = IsolatedProcess<Pipe<Writable, At<O, 0>>, Pipe<Readable, At<O, 1>>, Pipe<Readable, At<O, 2>>>;
export interface Spawn<R = SpawnOptions> {
  <const O extends R>(command: string, options: O): Started<O>;
  <const O extends R = R & {}>(command: string, args: readonly string[] | undefined, options: O): Started<O>;
  // biome-ignore lint/complexity/noBannedTypes: no options at all
  (command: string, args?: readonly string[]): Started<{}>;
}
export interface Run<R = RunOptions> {
  (command: string, args: readonly string[], options: R & { encoding: 'buffer' }): Promise<RunResult<Buffer>>;
  (command: string, options: R & { encoding: 'buffer' }): Promise<RunResult<Buffer>>;
  (command: string, options: R & { encoding?: BufferEncoding }): Promise<RunResult>;
  (command: string, args?: readonly string[], options?: R & { encoding?: BufferEncoding }): Promise<RunResult>;
  (command: string, args: readonly string[], options: R): Promise<RunResult<string | Buffer>>;
}
export interface SpawnOptions {
  // where it runs
  rootfs?: OverlayRootfs | Image | string;
  readonly?: boolean;
  mounts?: readonly Mount[];
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  hostname?: string;
  domainname?: string;
  // what is isolated
  namespaces?: { readonly [T in NamespaceType]?: 'new' | 'host' | NamespaceByType[T] };
  idMap?: 'auto' | 'self' | IdMap;
  timeOffsets?: { monotonic?: number; boottime?: number };
  network?: 'none' | 'host' | NetNamespace | NetworkOptions;
  cgroup?: Cgroup | CgroupLimits;
  // what it may do
  user?: { uid?: number; gid?: number; groups?: readonly number[] } | string;
  capabilities?: readonly Capability[] | { [S in 'bounding' | 'effective' | 'permitted' | 'inheritable' | 'ambient']?: readonly Capability[] };
  seccomp?: 'default' | 'unconfined' | SeccompProfile | { profile?: 'default' | SeccompProfile; notify: SeccompNotify };
  landlock?: LandlockRules;
  noNewPrivileges?: boolean;
  /**
   * The profile of AppArmor (process.apparmorProfile of the OCI runtime specification), which has to be loaded. Default: 'cloister-default' where AppArmor
   * is on, that is loaded, and this process is unconfined. `false`: none is asked for. Throws ERR_CLOISTER_LABEL where a named one cannot be had. docs/labels.md
   */
  apparmor?: string | false;
  /** Contexts of SELinux, of the host's policy; with `process` there is an init. Throws ERR_CLOISTER_LABEL where SELinux is off, or its policy refuses. */
  selinux?: SelinuxLabels;
  /** Side channels of the processor that are closed for the program: prctl(2), PR_SET_SPECULATION_CTRL. Refused where the machine cannot. */
  speculation?: readonly Speculation[];
  /** No other process on the other threads of its core: prctl(2), PR_SCHED_CORE. Refused where the kernel cannot (CONFIG_SCHED_CORE). */
  coreScheduling?: boolean;
  maskedPaths?: readonly string[];
  readonlyPaths?: readonly string[];
  rlimits?: { readonly [L in Rlimit]?: number | { soft: number; hard: number } };
  sysctl?: Record<string, string>;
  umask?: number;
  oomScoreAdj?: number;
  fallback?: 'never' | 'landlock';
  // how it runs
  stdio?: 'pipe' | 'ignore' | 'inherit' | readonly StdioOption[];
  tty?: boolean | { columns: number; rows: number };
  init?: boolean;
  timeout?: number;
  cpuTimeLimit?: number;
  outputLimit?: Bytes;
  signal?: AbortSignal;
  killSignal?: NodeJS.Signals;
  killGrace?: number;
  detached?: boolean;
}
export interface RunOptions extends SpawnOptions {
  input?: string | Uint8Array | Readable;
  encoding?: BufferEncoding | 'buffer';
}
export interface ProcessEvents {
  spawn: [];
  error: [IsolationError];
  exit: [code: number | null, signal: NodeJS.Signals | null];
  close: [code: number | null, signal: NodeJS.Signals | null];
  denied: [Denial];
}
export interface Denial {
  kind: 'syscall' | 'egress' | 'dns' | 'landlock';
  pid?: number;
  syscall?: string;
  path?: string;
  hostname?: string;
  address?: string;
  port?: number;
}
export interface IsolatedProcess<
  In extends Writable | null = Writable | null,
  Out extends Readable | null = Readable | null,
  Err extends Readable | null = Readable | null,
> extends EventEmitter<ProcessEvents>,
    AsyncDisposable {
  readonly pid: number | undefined;
  readonly spawnfile: string;
  readonly spawnargs: readonly string[];
  readonly stdin: In;
  readonly stdout: Out;
  readonly stderr: Err;
  readonly stdio: readonly [In, Out, Err, ...(Duplex | null)[]];
  readonly exitCode: number | null;
  readonly signalCode: NodeJS.Signals | null;
  readonly killed: boolean;
  readonly spawned: Promise<void>;
  readonly exited: Promise<IsolatedResult>;
  readonly namespaces: Readonly<NamespaceByType>;
  readonly cgroup?: Cgroup;
  readonly rootfs?: OverlayRootfs;
  /** The receipt, read back from the kernel while it lives; that of its plan before 'spawn' (undefined until there is one). */
  readonly isolation: IsolationReceipt | undefined;
  readonly ports: readonly { host: number; guest: number }[];
  kill(signal?: NodeJS.Signals | number): boolean;
  resize(columns: number, rows: number): void;
  stats(): Promise<CgroupStats>;
  ref(): void;
  unref(): void;
}
export interface IsolatedResult {
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  reason: 'exit' | 'signal' | 'timeout' | 'cpu-time' | 'oom' | 'output-limit' | 'aborted';
  durationMs: number;
  usage: ResourceUsage;
  isolation: IsolationReceipt;
}
export interface RunResult<T = string> extends IsolatedResult {
  stdout: T;
  stderr: T;
  stdoutTruncated: boolean;
  stderrTruncated: boolean;
}
export interface ResourceUsage {
  cpuUserMs: number;
  cpuSystemMs: number;
  maxRssBytes: number;
  memoryPeakBytes: number;
  memoryPeakSource: 'cgroup' | 'rusage';
  oomKills?: number;
  pidsPeak?: number;
  ioReadBytes?: number;
  ioWriteBytes?: number;
}
/** What was really in force, read back from the kernel where it can be. */
export interface IsolationReceipt {
  level: 'namespaces' | 'landlock';
  namespaces: Readonly<Record<NamespaceType, 'new' | 'host' | 'joined'>>;
  idMap?: IdMap;
  root: { driver: string; readonly: boolean; missing: readonly string[] };
  capabilities: readonly Capability[];
  noNewPrivileges: boolean;
  seccomp: { profile: string; instructions: number } | false;
  landlock: { abi: number; missing: readonly string[] } | false;
  /** Of AppArmor; its mode as read back. False: nothing confines the program. */
  apparmor: AppArmorProfile | false;
  /** The context of SELinux; false where it is off. */
  selinux: string | false;
  cgroup: { mode: CgroupSupport['mode']; path: string; controllers: readonly string[] } | false;
  network: 'none' | 'host' | 'joined' | 'bridge' | 'egress';
  /** What was asked for and could not be had; empty unless `fallback` allowed it. */
  missing: readonly string[];
}
export type Mount =
  | { type: 'bind'; source: string; target: string; readonly?: boolean; recursive?: boolean; idMap?: IdMap }
  | { type: 'tmpfs'; target: string; size?: Bytes; mode?: number }
  | { type: 'proc' | 'sysfs' | 'devpts' | 'mqueue' | 'cgroup'; target: string }
  | { type: 'overlay'; target: string; source: OverlayRootfs }
  | { type: 'overlay'; target: string; layers: readonly string[]; upper?: string; work?: string }
  | { type: 'file'; target: string; contents: string | Uint8Array; mode?: number };
export type SandboxOptions = Omit<SpawnOptions, 'stdio' | 'tty' | 'timeout' | 'cpuTimeLimit' | 'outputLimit' | 'init' | 'detached'>;
export type WarmProcess = IsolatedProcess<Writable, Readable, Readable>;
export interface WarmOptions {
  command: string;
  args?: readonly string[];
  /** Printed by the program on stdout when it is ready; default: as soon as it has been started. */
  ready?: string | RegExp;
}
export interface Explanation {
  steps: readonly { index: number; side: 'parent' | 'child'; step: string; syscall: string; args: readonly string[] }[];
  toString(): string;
}
