// What the contract names and this version does not have. Nobody can make an instance; whoever tries is told.

import { EventEmitter } from 'node:events';
import type { Readable } from 'node:stream';
import type { Cgroup } from './cgroup/cgroup.js';
import type { CgroupStats } from './cgroup/types.js';
import type { HostReport } from './host/types.js';
import type { NamespaceByType } from './namespace/types.js';
import type { OverlayRootfs } from './rootfs/overlay-rootfs.js';
import type { Denial, IsolatedResult, Run, SandboxOptions, Spawn, WarmOptions, WarmProcess } from './spawn/types.js';
import { unavailable } from './unavailable.js';

export interface Sandbox extends AsyncDisposable {
  readonly spawn: Spawn;
  readonly run: Run;
  readonly rootfs: OverlayRootfs;
  readonly cgroup: Cgroup | undefined;
  readonly namespaces: Readonly<NamespaceByType>;
  readonly exited: Promise<IsolatedResult>;
  readFile(path: string): Promise<Buffer>;
  writeFile(path: string, data: string | Uint8Array | Readable): Promise<void>;
  stats(): Promise<CgroupStats>;
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  kill(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: there are no instances
export class Sandbox extends EventEmitter<{ exit: [IsolatedResult]; denied: [Denial] }> {
  private constructor() {
    super();
    throw unavailable.error('Sandbox');
  }
  static create(_options?: SandboxOptions): Promise<Sandbox> {
    return unavailable('Sandbox.create');
  }
}

export interface SandboxPool<Warm extends WarmProcess | undefined = WarmProcess | undefined> extends AsyncDisposable {
  acquire(options?: { signal?: AbortSignal }): Promise<Sandbox & { readonly warm: Warm }>;
  release(box: Sandbox): Promise<void>;
  readonly run: Run;
  [Symbol.asyncDispose](): Promise<void>;
}
// biome-ignore lint/correctness/noUnusedVariables: the interface above has it
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: there are no instances
export class SandboxPool<Warm extends WarmProcess | undefined = WarmProcess | undefined> {
  private constructor() {
    throw unavailable.error('SandboxPool');
  }
  static create(options: SandboxOptions & { size: number; warm: WarmOptions }): Promise<SandboxPool<WarmProcess>>;
  static create(options: SandboxOptions & { size: number; warm?: WarmOptions }): Promise<SandboxPool>;
  static create(_options: SandboxOptions & { size: number; warm?: WarmOptions }): Promise<never> {
    return unavailable('SandboxPool.create');
  }
}

export function probe(): Promise<HostReport> {
  return unavailable('probe');
}
