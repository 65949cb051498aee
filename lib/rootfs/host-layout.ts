import { existsSync, lstatSync, readdirSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { type MountInfo, mountTable } from '../host/mountinfo.js';

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

let known: { layout: HostLayout; hide: string } | undefined;

export function hostLayout(hide: readonly string[] = []): HostLayout {
  const mounts = mountTable.read();
  const key = hide.join('\0');
  if (known?.layout.generation !== mountTable.generation || known.hide !== key) {
    known = { layout: read(mounts, hide), hide: key };
  }
  return known.layout;
}

function read(table: readonly MountInfo[], hide: readonly string[]): HostLayout {
  const hidden: HostLayout['hidden'][number][] = [];
  for (const path of [...hiddenDirectories, ...hiddenFiles, ...hide]) {
    try {
      // What a link leads to is what has to be hidden: /home is /var/home on some hosts.
      const real = realpathSync(path);
      const status = lstatSync(real);
      hidden.push({ path: real, kind: status.isDirectory() ? 'directory' : 'file', mode: status.mode & 0o7777 });
    } catch {
      // Not there, but it may be before long.
      if (!(hiddenDirectories as readonly string[]).includes(path) && existsSync(dirname(path))) hidden.push({ path, kind: 'file', mode: 0 });
    }
  }
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
  return { generation: mountTable.generation, mounts, mountPoints: table.map(({ path }) => path), hidden };
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
