import type { Limit } from '../units.js';

export interface CgroupSupport {
  mode: 'v1' | 'v2' | 'hybrid';
  controllers: Readonly<Record<string, { hierarchy: 'v1' | 'v2'; mountpoint: string; writable: boolean }>>;
  /** Where this process may make cgroups, or undefined: then `why` and `hint` say why and what grants it. */
  root?: string;
  why?: string;
  hint?: string;
}
export interface CgroupLimits {
  memory?: Limit | { max?: Limit; high?: Limit; low?: Limit; min?: Limit; swapMax?: Limit; oomGroup?: boolean };
  /** A number: cores. */
  cpu?: number | { max?: number | 'max'; periodUs?: number; weight?: number; burstUs?: number; idle?: boolean };
  cpuset?: { cpus?: string; mems?: string; partition?: 'member' | 'root' | 'isolated' };
  pids?: number | 'max';
  io?: readonly { device: string; readBps?: Limit; writeBps?: Limit; readIops?: number | 'max'; writeIops?: number | 'max'; weight?: number }[];
  devices?: readonly DeviceRule[];
  hugetlb?: Readonly<Record<string, Limit>>;
  rdma?: Readonly<Record<string, { handles?: number | 'max'; objects?: number | 'max' }>>;
  misc?: Readonly<Record<string, number | 'max'>>;
  network?: { classId?: number; priorities?: Readonly<Record<string, number>> };
}
export interface DeviceRule {
  allow: boolean;
  type: 'a' | 'b' | 'c';
  major?: number;
  minor?: number;
  access?: string;
}
/** Limits as they are now: numbers only, Infinity where there is none; only the controllers that the group has. */
export interface CgroupLimitsNow {
  memory?: { max: number; high: number; low: number; min: number; swapMax?: number; oomGroup?: boolean };
  cpu?: { max: number; periodUs: number; weight: number; burstUs?: number; idle?: boolean };
  cpuset?: { cpus: string; mems: string; partition?: string };
  pids?: number;
  io?: readonly { device: string; readBps: number; writeBps: number; readIops: number; writeIops: number; weight?: number }[];
  devices?: readonly DeviceRule[];
  hugetlb?: Readonly<Record<string, number>>;
  rdma?: Readonly<Record<string, { handles: number; objects: number }>>;
  misc?: Readonly<Record<string, number>>;
  network?: { classId: number; priorities: Readonly<Record<string, number>> };
}
export interface CgroupStats {
  cpu?: { usageUs: number; userUs: number; systemUs: number; periods?: number; throttledPeriods?: number; throttledUs?: number };
  memory?: {
    currentBytes: number;
    peakBytes?: number;
    swapBytes?: number;
    anonBytes: number;
    fileBytes: number;
    kernelBytes?: number;
    events: { low?: number; high?: number; max: number; oom: number; oomKill: number };
  };
  io?: Readonly<Record<string, { readBytes: number; writeBytes: number; reads: number; writes: number }>>;
  pids?: { current: number; peak?: number; maxEvents: number };
  hugetlb?: Readonly<Record<string, { currentBytes: number; maxEvents: number }>>;
  pressure?: { [R in 'cpu' | 'memory' | 'io']?: { some: Pressure; full?: Pressure } };
  freezer: 'thawed' | 'freezing' | 'frozen';
  populated: boolean;
}
export interface Pressure {
  avg10: number;
  avg60: number;
  avg300: number;
  totalUs: number;
}
export interface CgroupEvents {
  oom: [{ kills: number }];
  'memory-high': [{ count: number }];
  'pids-max': [{ count: number }];
  pressure: [{ resource: 'cpu' | 'memory' | 'io' }];
  empty: [];
}
