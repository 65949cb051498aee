import { closeSync, openSync, readSync } from 'node:fs';
import { native } from '../native.js';

/** A line of /proc/PID/mountinfo, proc_pid_mountinfo(5). */
export interface MountInfo {
  readonly id: number;
  readonly parent: number;
  readonly root: string;
  readonly path: string;
  readonly options: readonly string[];
  readonly type: string;
  /** Of the superblock: for a cgroup v1 its controllers are among them. */
  readonly superOptions: readonly string[];
}

export function parseMountInfo(text: string): MountInfo[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [left = '', right = ''] = line.split(' - ');
      const [type = '', , superOptions = ''] = right.split(' ');
      const [id, parent, , root = '', path = '', options = ''] = left.split(' ');
      return {
        id: Number(id),
        parent: Number(parent),
        root: unescapeOctal(root),
        path: unescapeOctal(path),
        options: options.split(','),
        type,
        superOptions: superOptions.split(','),
      };
    });
}

/** Space, tab, newline and backslash are written in octal. */
function unescapeOctal(path: string): string {
  if (!path.includes('\\')) return path;
  const bytes = Buffer.from(path, 'utf8').toString('latin1');
  return Buffer.from(
    bytes.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
    'latin1',
  ).toString('utf8');
}

/**
 * The mounts that can be seen: where one hides another, the upper one. `generation` changes when anything was mounted or
 * unmounted since; reading and parsing them for each spawn would cost more than the spawn on a host with many.
 */
export class MountTable {
  #fd: number | undefined;
  #mounts: readonly MountInfo[] | undefined;
  generation = 0;

  read(): readonly MountInfo[] {
    // proc_pid_mountinfo(5): poll() reports a change once, to whoever holds the file open.
    if (this.#fd === undefined) this.#fd = openSync('/proc/self/mountinfo', 'r');
    if (native().hasChanged(this.#fd) || this.#mounts === undefined) {
      this.#mounts = visibleMounts(parseMountInfo(readWhole(this.#fd)));
      this.generation++;
    }
    return this.#mounts;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

function readWhole(fd: number): string {
  const parts: Buffer[] = [];
  let position = 0;
  for (;;) {
    const part = Buffer.alloc(65536);
    const size = readSync(fd, part, 0, part.length, position);
    if (size === 0) return Buffer.concat(parts).toString('utf8');
    parts.push(part.subarray(0, size));
    position += size;
  }
}

/** Where one hides another, the upper one. */
export function visibleMounts(mounts: readonly MountInfo[]): MountInfo[] {
  const byId = new Map(mounts.map((mount) => [mount.id, mount]));
  const byPath = new Map<string, MountInfo>();
  for (const mount of mounts) byPath.set(mount.path, mount);
  const isShown = (mount: MountInfo): boolean => {
    const above = new Set<MountInfo>();
    for (let at = byId.get(mount.parent); at && !above.has(at); at = byId.get(at.parent)) above.add(at);
    // A mount over a parent directory hides what was mounted below that directory before.
    for (let path = mount.path; path !== '/'; ) {
      path = path.slice(0, path.lastIndexOf('/')) || '/';
      const over = byPath.get(path);
      if (over && !above.has(over)) return false;
    }
    return true;
  };
  return [...byPath.values()].filter(isShown).sort((a, b) => (a.path < b.path ? -1 : 1));
}

export const mountTable: MountTable = new MountTable();
