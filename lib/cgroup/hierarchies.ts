import { readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { type MountInfo, mountTable } from '../host/mountinfo.js';

// cgroups(7). A hierarchy is one mounted tree of groups: each of v1 has one or more controllers, that of v2 has all the others.

export type Version = 'v1' | 'v2';

export interface Hierarchy {
  readonly version: Version;
  readonly mountpoint: string;
  /** v1: those that it was mounted with. v2: what its topmost group that can be seen offers. */
  readonly controllers: readonly string[];
  /** The directory of the group that this process is in; the mount point if that group is not below it. */
  readonly home: string;
}

export interface Hierarchies {
  readonly mode: 'v1' | 'v2' | 'hybrid';
  readonly all: readonly Hierarchy[];
  readonly v2: Hierarchy | undefined;
}

let known: { readonly generation: number; readonly own: string; readonly hierarchies: Hierarchies } | undefined;

/** As they are mounted now, wherever that is. Empty where none can be seen. */
export function hierarchies(): Hierarchies {
  const mounts = mountTable.read();
  const own = readFileSync('/proc/self/cgroup', 'utf8');
  if (known?.generation === mountTable.generation && known.own === own) return known.hierarchies;
  const result = hierarchiesIn(mounts, own, kernelControllers(), (directory) => readOptional(join(directory, 'cgroup.controllers')));
  known = { generation: mountTable.generation, own, hierarchies: result };
  return result;
}

/** Of the text of /proc/self/cgroup, and what each directory of v2 has in its cgroup.controllers. */
export function hierarchiesIn(
  mounts: readonly MountInfo[],
  own: string,
  inKernel: ReadonlySet<string>,
  offered: (directory: string) => string | undefined,
): Hierarchies {
  const all = mounts
    .filter(({ type }) => type === 'cgroup' || type === 'cgroup2')
    .map((mount): Hierarchy & { readonly named: boolean } => {
      const v2 = mount.type === 'cgroup2';
      const controllers = v2 ? words(offered(mount.path)) : mount.superOptions.filter((option) => inKernel.has(option));
      const home = homeIn(mount.path, mount.root, ownPath(own, v2 ? undefined : controllers));
      return { version: v2 ? 'v2' : 'v1', mountpoint: mount.path, controllers, home, named: !v2 && controllers.length === 0 };
    })
    // The same one mounted a second time is no other one.
    .filter(
      ({ version, controllers }, index, mounted) =>
        mounted.findIndex((each) => each.version === version && each.controllers.join() === controllers.join()) === index,
    )
    // A named v1 hierarchy, systemd's, has no controllers: it is a service manager's book-keeping, not ours to write in.
    .filter(({ named }) => !named);
  const v2 = all.find(({ version }) => version === 'v2');
  const v1 = all.filter(({ version }) => version === 'v1');
  return {
    mode: v1.length === 0 ? 'v2' : v2 ? 'hybrid' : 'v1',
    all,
    v2,
  };
}

let compiledIn: ReadonlySet<string> | undefined;

/** The first column of /proc/cgroups, which lists v1's names of them: `blkio` is v2's `io`. */
function kernelControllers(): ReadonlySet<string> {
  compiledIn ??= new Set(
    (readOptional('/proc/cgroups') ?? '')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.split('\t')[0] as string),
  );
  return compiledIn;
}

/** Of the lines `ID:controllers:path`; v2's is `0::path`. */
function ownPath(text: string, controllers: readonly string[] | undefined): string {
  for (const line of text.split('\n')) {
    const [id, names = '', ...path] = line.split(':');
    if (controllers ? id !== '0' && names.split(',').some((name) => controllers.includes(name)) : id === '0') return path.join(':');
  }
  return '/';
}

/**
 * Both paths are relative to the root of our cgroup namespace, and begin with '/..' above it. A container engine without a cgroup
 * namespace mounts its own group only: then the mount's root is that group's path.
 */
function homeIn(mountpoint: string, root: string, own: string): string {
  const below = relative(root, own);
  return below === '..' || below.startsWith('../') ? mountpoint : join(mountpoint, below);
}

export const words = (text: string | undefined): string[] => (text ?? '').split(/\s+/).filter((word) => word !== '');

export function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
