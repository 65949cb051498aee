import { accessSync, constants, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { CgroupError, errnoName } from '../errors.js';
import { type Hierarchies, type Hierarchy, hierarchies, readOptional, words } from './hierarchies.js';
import { commonName, controllers } from './limits.js';
import { removeOrphans } from './orphans.js';
import { ownedName } from './owner-name.js';
import type { CgroupSupport } from './types.js';

// Where this process may make groups: cgroups(7), "Cgroups delegation"; cgroup-v2.rst, "Delegation" and "No Internal Process
// Constraint".

/** What has to be done before groups can be made below `directory`. */
interface Way {
  readonly directory: string;
  /** Directories, topmost first, whose children have to get controllers. */
  readonly enable: readonly { readonly directory: string; readonly names: readonly string[] }[];
  /** This process is alone in `directory`, and has to leave it for a child of it. */
  readonly leaf: boolean;
}

interface Obstacle {
  readonly directory: string;
  readonly errno: number;
  readonly why: string;
  readonly hint: string;
}

/** Where this process was before it moved to a leaf of its own. */
let left: string | undefined;

/** Directories that are known to do, by hierarchy and controllers. */
const settled = new Map<string, string>();

/**
 * The directory of each hierarchy below which a group can have these controllers. Enables them on the way, and takes away what dead
 * processes have left there. Throws CgroupError ERR_CLOISTER_CGROUP_DELEGATION.
 */
export async function parentIn(hierarchy: Hierarchy, wanted: readonly string[]): Promise<string> {
  const key = `${hierarchy.mountpoint}\0${hierarchy.home}\0${[...wanted].sort().join()}`;
  const known = settled.get(key);
  if (known !== undefined) return known;
  const found = wayIn(hierarchy, wanted);
  if ('why' in found) throw refused(found);
  take(found);
  settled.set(key, found.directory);
  await removeOrphans(found.directory);
  return found.directory;
}

/** A directory that was settled on is gone, or has changed. */
export function forgetParents(): void {
  settled.clear();
}

function refused({ directory, errno, why, hint }: Obstacle): CgroupError {
  return new CgroupError('ERR_CLOISTER_CGROUP_DELEGATION', `${errnoName(errno)}: no control group can be made below ${directory}: ${why}`, {
    errno,
    step: 'find a place for control groups',
    path: directory,
    hint,
    evidence: [`/proc/self/cgroup: ${readFileSync('/proc/self/cgroup', 'utf8').trim().replaceAll('\n', ', ')}`],
  });
}

function wayIn(hierarchy: Hierarchy, wanted: readonly string[]): Way | Obstacle {
  if (hierarchy.version === 'v1') {
    // v1 has groups with processes and children, so our own group will do: its limits hold for what is below.
    const obstacle = unwritable(hierarchy.home, ['.']);
    return obstacle ? { ...obstacle, hint: v1Hint } : { directory: hierarchy.home, enable: [], leaf: false };
  }
  let first: Obstacle | undefined;
  for (let directory = start(hierarchy); ; directory = dirname(directory)) {
    const way = wayBelow(hierarchy, directory, wanted);
    if (!('why' in way)) return way;
    first ??= way;
    if (directory === hierarchy.mountpoint) return first;
  }
}

const start = ({ home }: Hierarchy): string => (left !== undefined && dirname(home) === left ? left : home);

function wayBelow(hierarchy: Hierarchy, directory: string, wanted: readonly string[]): Way | Obstacle {
  // Moving a process needs the right to write to cgroup.procs of the nearest common ancestor, too (cgroup_procs_write_permission).
  const obstacle = unwritable(directory, ['.', 'cgroup.procs']);
  if (obstacle) return { ...obstacle, hint: v2Hint };
  const enable: { directory: string; names: string[] }[] = [];
  for (let at = directory; ; at = dirname(at)) {
    const names = wanted.filter((name) => !words(readOptional(join(at, 'cgroup.subtree_control'))).includes(name));
    if (names.length === 0) break;
    const offered = words(readOptional(join(at, 'cgroup.controllers')));
    const missing = names.filter((name) => !offered.includes(name));
    const denied = unwritable(at, ['cgroup.subtree_control']);
    if (denied || (at === hierarchy.mountpoint && missing.length > 0)) {
      return {
        directory: at,
        errno: denied?.errno ?? -2,
        why: `${list(names)} ${names.length > 1 ? 'are' : 'is'} not enabled for its children${denied ? `, and ${denied.why}` : ', nor offered there'}`,
        hint: controllerHint(names),
      };
    }
    enable.unshift({ directory: at, names });
    if (at === hierarchy.mountpoint) break;
  }
  const needsLeaf = enable.some(({ directory: at }) => at === directory) && !isRoot(directory);
  const others = needsLeaf ? othersIn(directory) : [];
  if (others.length > 0) {
    return {
      directory,
      errno: -16,
      why: `it has processes of its own (${others.slice(0, 5).join(', ')}${others.length > 5 ? ', …' : ''}), and a group of v2 has either processes or children with controllers`,
      hint: `Start this program in a group of its own: systemd-run --user --scope -p Delegate=yes node … (--user not as root), or a service with [Service] Delegate=yes.`,
    };
  }
  const busy = enable.find(({ directory: at }) => at !== directory && !isRoot(at) && words(readOptional(join(at, 'cgroup.procs'))).length > 0);
  if (busy) return { directory: busy.directory, errno: -16, why: 'it has processes of its own, so its children can get no controllers', hint: v2Hint };
  return { directory, enable, leaf: needsLeaf && words(readOptional(join(directory, 'cgroup.procs'))).length > 0 };
}

/** The topmost group of all, which alone may have processes and controllers for its children, has no type. */
const isRoot = (directory: string): boolean => readOptional(join(directory, 'cgroup.type')) === undefined;

/** 0: a process that our pid namespace does not have. */
const othersIn = (directory: string): string[] => words(readOptional(join(directory, 'cgroup.procs'))).filter((pid) => Number(pid) !== process.pid);

function unwritable(directory: string, files: readonly string[]): Omit<Obstacle, 'hint'> | undefined {
  for (const file of files) {
    try {
      accessSync(join(directory, file), constants.W_OK);
    } catch (error) {
      const { errno = -13, code } = error as NodeJS.ErrnoException;
      const what = file === '.' ? 'it' : file;
      const why =
        code === 'EROFS' ? `${what} is mounted read-only` : code === 'ENOENT' ? `${what} is not there` : `uid ${process.geteuid?.()} may not write to ${what}`;
      return { directory, errno, why };
    }
  }
  return undefined;
}

function take({ directory, enable, leaf }: Way): void {
  if (leaf) {
    const own = join(directory, ownedName());
    mkdirSync(own);
    try {
      writeFileSync(join(own, 'cgroup.procs'), String(process.pid));
    } catch (error) {
      rmdirSync(own);
      throw error;
    }
    left = directory;
  }
  for (const { directory: at, names } of enable) {
    const text = names.map((name) => `+${name}`).join(' ');
    try {
      writeFileSync(join(at, 'cgroup.subtree_control'), text);
    } catch (error) {
      const { errno = -5 } = error as NodeJS.ErrnoException;
      throw refused({ directory: at, errno, why: `writing '${text}' to its cgroup.subtree_control was refused`, hint: v2Hint });
    }
  }
}

const list = (names: readonly string[]): string => (names.length > 1 ? `${names.slice(0, -1).join(', ')} and ${names.at(-1)}` : (names[0] ?? ''));

const v1Hint =
  'Groups of cgroup v1 are made by root: run as root, or on a host with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1 on the kernel command line).';
const v2Hint =
  'Run it where systemd delegates a group: systemd-run --user --scope -p Delegate=yes node …, or a service with [Service] Delegate=yes. ' +
  'In a container, cgroup2 must be mounted writable (podman does; docker run --privileged, or --cgroupns=private with a writable /sys/fs/cgroup).';
const controllerHint = (names: readonly string[]): string =>
  `systemctl edit user@.service, with [Service] Delegate=${[...new Set(['cpu', 'cpuset', 'io', 'memory', 'pids', ...names])].join(' ')}, grants them to users (as root; log in again). For a service: Delegate=yes.`;

/** The contract's answer: nothing is changed by asking. */
export function support(among: Hierarchies = hierarchies()): CgroupSupport {
  const found: Record<string, { hierarchy: 'v1' | 'v2'; mountpoint: string; writable: boolean }> = {};
  const ways = among.all.map((hierarchy) => ({ hierarchy, way: wayIn(hierarchy, []) }));
  for (const { hierarchy } of ways) {
    for (const name of hierarchy.controllers) {
      const way = wayIn(hierarchy, hierarchy.version === 'v2' ? [name] : []);
      found[commonName(name)] ??= { hierarchy: hierarchy.version, mountpoint: hierarchy.mountpoint, writable: !('why' in way) };
    }
  }
  // A BPF program: every group of v2 can have one.
  const v2 = ways.find(({ hierarchy }) => hierarchy.version === 'v2');
  if (v2) found['devices'] = { hierarchy: 'v2', mountpoint: v2.hierarchy.mountpoint, writable: !('why' in v2.way) };
  const main = ways.find(({ hierarchy }) => hierarchy.controllers.includes('memory')) ?? v2 ?? ways[0];
  const base = { mode: among.mode, controllers: found };
  if (!main) return { ...base, why: 'no control group hierarchy is mounted here', hint: 'mount -t cgroup2 none /sys/fs/cgroup (as root).' };
  return 'why' in main.way ? { ...base, why: `${main.way.directory}: ${main.way.why}`, hint: main.way.hint } : { ...base, root: main.way.directory };
}

/** What a group that is to have everything gets in this hierarchy: what is offered, and can be had without an obstacle. */
export function obtainable(hierarchy: Hierarchy): string[] {
  if (hierarchy.version === 'v1') return [...hierarchy.controllers];
  const ours = controllers.flatMap(({ v2 }) => (v2 === undefined ? [] : [v2]));
  return ours.filter((name) => hierarchy.controllers.includes(name) && !('why' in wayIn(hierarchy, [name])));
}
