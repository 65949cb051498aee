import { CgroupError } from '../errors.js';
import * as check from '../spawn/validate.js';
import type { Controller, Reader, Write } from './controllers/controller.js';
import { cpu } from './controllers/cpu.js';
import { cpuset } from './controllers/cpuset.js';
import { devices, type Rule } from './controllers/devices.js';
import { hugetlb } from './controllers/hugetlb.js';
import { io } from './controllers/io.js';
import { memory } from './controllers/memory.js';
import { misc } from './controllers/misc.js';
import { netCls, netPrio } from './controllers/network.js';
import { pids } from './controllers/pids.js';
import { rdma } from './controllers/rdma.js';
import { type Hierarchies, type Hierarchy, hierarchies } from './hierarchies.js';
import type { CgroupLimits } from './types.js';

// biome-ignore lint/suspicious/noExplicitAny: each knows its own settings, and only it is given them
export type AnyController = Controller<any, any>;

export const controllers: readonly AnyController[] = [memory, cpu, cpuset, pids, io, devices, hugetlb, rdma, misc, netCls, netPrio];

/** Limits that have been checked. */
export interface Limits {
  readonly entries: readonly { readonly controller: AnyController; readonly value: unknown }[];
  /** undefined: nothing is said of devices. */
  readonly devices: readonly Rule[] | undefined;
}

export const noLimits: Limits = { entries: [], devices: undefined };

/** Throws a TypeError that names the limit. */
export function checkLimits(value: unknown, option: string): Limits {
  const given = check.record(value, option);
  check.onlyKeys(given, option, ['memory', 'cpu', 'cpuset', 'pids', 'io', 'devices', 'hugetlb', 'rdma', 'misc', 'network'] satisfies (keyof CgroupLimits)[]);
  const entries = controllers.flatMap((controller) => {
    const limit = given[controller.key as string];
    if (limit === undefined) return [];
    const checked = controller.check(limit, `${option}.${controller.key as string}`);
    return checked === undefined || (controller === netPrio && (checked as []).length === 0) ? [] : [{ controller, value: checked }];
  });
  return { entries, devices: entries.find(({ controller }) => controller === devices)?.value as Rule[] | undefined };
}

/** v2's name of what v1 may call otherwise. */
export const commonName = (name: string): string => (name === 'blkio' ? 'io' : name);

/** The name of a controller in this version. */
export const nameIn = (controller: AnyController, { version }: Hierarchy): string | undefined => controller[version];

/** Where a controller is, or why it is nowhere. Devices are decided by a program wherever v2 is: v1 cannot say all that rules can. */
export function hierarchyOf(controller: AnyController, among: Hierarchies = hierarchies()): Hierarchy {
  if (controller === devices && among.v2) return among.v2;
  const found = controller.v1 === undefined ? undefined : among.all.find((h) => h.version === 'v1' && h.controllers.includes(controller.v1 as string));
  if (found) return found;
  if (controller.v2 !== undefined && among.v2?.controllers.includes(controller.v2)) return among.v2;
  throw new CgroupError('ERR_CLOISTER_CGROUP_UNSUPPORTED', missingController(controller, among), {
    step: `limit ${controller.key as string}`,
    hint: hintFor(controller, among),
    evidence: among.all.map(({ mountpoint, controllers: offered }) => `${mountpoint} offers ${offered.join(' ') || 'no controllers'}`),
  });
}

export const devicesAreHere = (hierarchy: Hierarchy): boolean => hierarchyOf(devices) === hierarchy;

export const nothingMounted = (): CgroupError =>
  new CgroupError('ERR_CLOISTER_CGROUP_UNSUPPORTED', 'no control group hierarchy is mounted here, so there can be no groups', {
    step: 'find a place for control groups',
    hint: mountHint,
  });

const mountHint = 'mount -t cgroup2 none /sys/fs/cgroup (as root), or, in a container, have it mounted by the engine.';

function missingController(controller: AnyController, { all, mode }: Hierarchies): string {
  if (all.length === 0) return `no control group hierarchy is mounted here, so ${controller.key as string} cannot be limited`;
  if (controller.v2 === undefined && mode === 'v2') return `cgroup v2 has no ${controller.v1}, so ${controller.key as string} cannot be limited`;
  return `no hierarchy that is mounted here has the controller ${controller.v2 ?? controller.v1}, so ${controller.key as string} cannot be limited`;
}

function hintFor(controller: AnyController, { all, mode }: Hierarchies): string {
  if (all.length === 0) return mountHint;
  if (controller.v2 === undefined) {
    return `It is a controller of cgroup v1: mount -t cgroup -o ${controller.v1} none DIRECTORY (as root) gives it a hierarchy of its own, also beside v2.`;
  }
  if (mode === 'v2') {
    return `Its kernel may be without it (/proc/cgroups), it may be switched off on the kernel's command line (cgroup_disable), or not be delegated: systemctl edit user@.service with [Service] Delegate=cpu cpuset io memory pids.`;
  }
  return `mount -t cgroup -o ${controller.v1} none DIRECTORY (as root), if this kernel has it (/proc/cgroups).`;
}

/** What sets the limits that belong to one hierarchy; `now` reads the group as it is. */
export function writesIn(hierarchy: Hierarchy, limits: Limits, now: Reader): Write[] {
  return limits.entries.flatMap(({ controller, value }) => {
    if (hierarchyOf(controller) !== hierarchy) return [];
    return controller === devices && hierarchy.version === 'v2' ? [] : controller.writes(value, hierarchy.version, now);
  });
}
