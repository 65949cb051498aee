import { existsSync, lstatSync, readdirSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { optionError } from '../errors.js';
import { type MountInfo, mountTable } from '../host/mountinfo.js';
import * as check from '../spawn/validate.js';

// What of the host's tree becomes the default root, and what does not.

/** Empty inside: other people's secrets, sockets of the host's services, and what is not for sharing. */
export const hiddenDirectories = ['/home', '/root', '/run', '/tmp', '/var/tmp'] as const;
/** Not there inside: root of an idmapped root is the owner of these copies of the host's secrets. */
const hiddenFiles = [
  '/etc/shadow',
  '/etc/shadow-',
  '/etc/gshadow',
  '/etc/gshadow-',
  '/etc/security/opasswd',
  '/etc/sudoers',
  '/etc/krb5.keytab',
  '/etc/ssh/ssh_host_rsa_key',
  '/etc/ssh/ssh_host_ecdsa_key',
  '/etc/ssh/ssh_host_ed25519_key',
  '/etc/ssl/private',
  '/var/backups/shadow.bak',
  '/var/backups/gshadow.bak',
  '/var/cache/debconf/passwords.dat',
  '/var/lib/systemd/credential.secret',
  '/var/lib/cloister',
] as const;
/** Mounted anew for each sandbox. */
export const kernelDirectories = ['/dev', '/proc', '/sys'] as const;

/** File systems that show the kernel, not files. */
const kernelTypes = new Set([
  'proc',
  'sysfs',
  'devtmpfs',
  'devpts',
  'mqueue',
  'cgroup',
  'cgroup2',
  'debugfs',
  'tracefs',
  'securityfs',
  'pstore',
  'bpf',
  'configfs',
  'fusectl',
  'hugetlbfs',
  'autofs',
  'binfmt_misc',
  'nsfs',
  'rpc_pipefs',
  'efivarfs',
  'selinuxfs',
  'nfsd',
]);

export interface HostMount {
  readonly path: string;
  readonly kind: 'directory' | 'file';
}

export interface HostLayout {
  readonly generation: number;
  /** '/' first; those in hidden or kernel directories left out. */
  readonly mounts: readonly HostMount[];
  /** Where anything at all is mounted. */
  readonly mountPoints: readonly string[];
  readonly hidden: readonly { readonly path: string; readonly kind: 'directory' | 'file'; readonly mode: number }[];
}

export const isBelow = (path: string, directory: string): boolean => directory === '/' || path === directory || path.startsWith(`${directory}/`);

type Hidden = HostLayout['hidden'][number];

const known = new Map<string, { readonly layout: HostLayout; readonly absent: readonly string[] }>();
/** Of different lists of what is to be hidden: a program may make up a new one each time. */
export const mostLayouts = 8;

export function hostLayout(hide: readonly string[] = []): HostLayout {
  const mounts = mountTable.read();
  const key = hide.join('\0');
  const before = known.get(key);
  known.delete(key);
  const isCurrent = before?.layout.generation === mountTable.generation && isStill(before, hide);
  const current = before && isCurrent ? before : read(mounts, hide);
  known.set(key, current);
  for (const oldest of known.keys()) if (known.size > mostLayouts) known.delete(oldest);
  return current.layout;
}

/** What a caller has named is looked up each time. Of our own list, which every spawn asks for, only what was not there. */
function isStill({ layout, absent }: { layout: HostLayout; absent: readonly string[] }, hide: readonly string[]): boolean {
  if (hide.length === 0) return !absent.some((path) => existsSync(path));
  return JSON.stringify(hiddenNow(hide).hidden) === JSON.stringify(layout.hidden);
}

/** `absent`: when one of these is there, there may be more to hide. */
function hiddenNow(hide: readonly string[]): { hidden: Hidden[]; absent: string[] } {
  const found = new Map<string, Hidden>();
  const absent: string[] = [];
  for (const path of [...hiddenDirectories, ...hiddenFiles, ...hide]) {
    try {
      // What a link leads to is what has to be hidden: /home is /var/home on some hosts.
      const real = realpathSync(path);
      const status = lstatSync(real);
      found.set(real, { path: real, kind: status.isDirectory() ? 'directory' : 'file', mode: status.mode & 0o7777 });
    } catch {
      // Not there, but it may be before long.
      const isDirectory = (hiddenDirectories as readonly string[]).includes(path);
      const above = isDirectory ? undefined : realOf(dirname(path));
      if (above === undefined) absent.push(isDirectory ? path : dirname(path));
      else found.set(join(above, basename(path)), { path: join(above, basename(path)), kind: 'file', mode: 0 });
    }
  }
  const all = [...found.values()];
  return { hidden: all.filter(({ path }) => !all.some((other) => other.path !== path && isBelow(path, other.path))), absent };
}

function realOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function read(table: readonly MountInfo[], hide: readonly string[]): { layout: HostLayout; absent: string[] } {
  const { hidden, absent } = hiddenNow(hide);
  const unseen = [...hidden.map(({ path }) => path), ...kernelDirectories];
  const mounts: HostMount[] = [];
  for (const { path, type } of table) {
    if (path !== '/' && (kernelTypes.has(type) || unseen.some((directory) => isBelow(path, directory)))) continue;
    try {
      mounts.push({ path, kind: statSync(path).isDirectory() ? 'directory' : 'file' });
    } catch {
      // A mount that we may not look into is not ours to show.
    }
  }
  return { layout: { generation: mountTable.generation, mounts, mountPoints: table.map(({ path }) => path), hidden }, absent };
}

/** An entry of `hide`. */
export function checkHidden(value: unknown, option: string): string {
  const path = check.absolutePath(value, option);
  const plain = resolve(path);
  if (plain === '/' || kernelDirectories.some((directory) => isBelow(plain, directory))) {
    throw optionError(
      option,
      "an absolute path that is not '/' and not in /dev, /proc or /sys, of which nothing is the host's (maskedPaths hides there)",
      value,
    );
  }
  return path;
}

/** One entry of the tree that an ordinary user's root is put together from. */
export type TreeEntry =
  | { readonly kind: 'directory'; readonly path: string; readonly mode: number }
  | { readonly kind: 'symlink'; readonly path: string; readonly target: string }
  | { readonly kind: 'overlay' | 'file'; readonly path: string };

/** Everybody may write to it: a program wants to find it empty, not to miss it. */
export const isWorkplace = ({ kind, mode }: HostLayout['hidden'][number]): boolean => kind === 'directory' && (mode & 0o002) !== 0;

/**
 * An ordinary user cannot overlay a directory that has other mounts below it: clone_private_mount() refuses whoever could look
 * below them (has_locked_children, fs/namespace.c), in what is hidden, too. So directories without mounts are overlaid, one by one, and those above
 * mounts are made anew. So are those above hidden ones that are to be written to, if a layer cannot make them empty (`canEmpty`).
 */
export function hostTree(layout: HostLayout, most: number, canEmpty: boolean): { entries: TreeEntry[]; missing: string[] } {
  const entries: TreeEntry[] = [];
  const missing: string[] = [];
  let overlays = 0;
  const walk = (directory: string): void => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      const path = directory === '/' ? `/${entry.name}` : `${directory}/${entry.name}`;
      if (layout.hidden.some((hidden) => hidden.path === path && hidden.kind === 'file')) continue;
      if (entry.isSymbolicLink()) entries.push({ kind: 'symlink', path, target: readlinkSync(path) });
      else if (entry.isFile()) entries.push({ kind: 'file', path });
      else if (entry.isDirectory()) visit(path);
    }
  };
  const visit = (path: string): void => {
    const status = statSync(path, { throwIfNoEntry: false });
    if (!status) return;
    const hidden = layout.hidden.find((candidate) => candidate.path === path);
    const mode = status.mode & 0o7777;
    if (hidden || (kernelDirectories as readonly string[]).includes(path)) entries.push({ kind: 'directory', path, mode: hidden?.mode ?? mode });
    else if (
      layout.mountPoints.some((mount) => mount !== path && mount !== '/' && isBelow(mount, path)) ||
      (!canEmpty && layout.hidden.some((below) => isWorkplace(below) && isBelow(below.path, path)))
    ) {
      entries.push({ kind: 'directory', path, mode });
      try {
        walk(path);
      } catch {
        missing.push(path);
      }
    } else if (overlays++ < most) {
      entries.push({ kind: 'overlay', path });
    } else missing.push(path);
  };
  walk('/');
  return { entries, missing };
}
