import { errnoName, errnoText, IsolationError } from '../errors.js';
import { native } from '../native.js';
import * as k from '../plan/constants.js';
import { printable } from './names.js';

// Entries of directories, one system call each. All of it is synchronous, for a thread or process that does nothing else.

export type FileType = 'file' | 'directory' | 'symlink' | 'fifo' | 'socket' | 'block-device' | 'char-device';

export interface Status {
  readonly type: FileType;
  /** Permission bits, with set-id and sticky bits. */
  readonly mode: number;
  readonly links: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly major: number;
  readonly minor: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  /** When anything of it was last changed: nobody can set it. */
  readonly changed: string;
  /** Device and inode number. */
  readonly identity: string;
}

const types = new Map<number, FileType>([
  [k.S_IFREG, 'file'],
  [k.S_IFDIR, 'directory'],
  [k.S_IFLNK, 'symlink'],
  [k.S_IFIFO, 'fifo'],
  [k.S_IFSOCK, 'socket'],
  [k.S_IFBLK, 'block-device'],
  [k.S_IFCHR, 'char-device'],
]);

export const self: Buffer = Buffer.alloc(0);

/** A refusal of the host's while `path` (of the tree) was being worked on. */
export function refused(errno: number, syscall: string, path: Uint8Array): IsolationError {
  return new IsolationError('ERR_CLOISTER_STEP', `${errnoName(errno)}: ${syscall} ${printable(path)}: ${errnoText(errno)}`, {
    errno,
    syscall,
    path: printable(path),
    hint: hints[-errno],
  });
}

const hints: Readonly<Record<number, string>> = {
  11: 'Somebody has a lease on it: whatever has it open has to end first.',
  24: 'Each level of a tree takes a descriptor: raise the limit of open files (ulimit -n).',
  28: 'Its file system is full.',
  122: 'A quota of its file system is used up.',
};

/** The number, or a throw. */
export function must(result: number, syscall: string, path: Uint8Array): number {
  if (result < 0) throw refused(result, syscall, path);
  return result;
}

function mustBe<T>(result: T | number, syscall: string, path: Uint8Array): T {
  if (typeof result === 'number') throw refused(result, syscall, path);
  return result;
}

const found = new Float64Array(16);

/** lstat(2), or undefined if there is no such entry. */
export function statusOf(directory: number, name: Uint8Array, path: Uint8Array): Status | undefined {
  const result = native().files.status(directory, name, found);
  if (result === -k.ENOENT || result === -k.ENOTDIR) return undefined;
  must(result, 'statx', path);
  const mode = found[0] as number;
  return {
    type: types.get(mode & k.S_IFMT) ?? 'socket',
    mode: mode & 0o7777,
    links: found[1] as number,
    uid: found[2] as number,
    gid: found[3] as number,
    size: found[4] as number,
    major: found[5] as number,
    minor: found[6] as number,
    seconds: found[7] as number,
    nanoseconds: found[8] as number,
    changed: `${found[9]}.${found[10]}`,
    identity: `${found[11]}:${found[12]}:${found[13]}:${found[14]}`,
  };
}

/** Of what a descriptor is for. */
export function statusOfOpen(fd: number, path: Uint8Array): Status {
  return statusOf(fd, self, path) as Status;
}

/** overlayfs.rst, "whiteouts and opaque directories". */
export const isWhiteout = ({ type, major, minor }: Status): boolean => type === 'char-device' && major === 0 && minor === 0;

/** Sorted by their bytes, so that what is made of them does not depend on how the file system stores them. */
export function namesIn(directory: number, path: Uint8Array): Buffer[] {
  return split(mustBe(native().files.list(directory), 'getdents64', path)).sort(Buffer.compare);
}

function split(list: Buffer): Buffer[] {
  const names: Buffer[] = [];
  for (let start = 0; start < list.length; ) {
    const end = list.indexOf(0, start);
    names.push(list.subarray(start, end));
    start = end + 1;
  }
  return names;
}

export function open(directory: number, name: Uint8Array, flags: number, path: Uint8Array, mode = 0): number {
  return must(native().files.open(directory, name, flags, mode, 0), 'openat2', path);
}

/** For listing it. Not a symlink: ENOTDIR or ELOOP. */
export function openDirectory(directory: number, name: Uint8Array, path: Uint8Array): number {
  return open(directory, name, k.O_RDONLY | k.O_DIRECTORY, path);
}

/** Of anything, without the effects that opening it has: a fifo that waits, a device that acts. */
export function openObject(directory: number, name: Uint8Array, path: Uint8Array): number {
  return open(directory, name, k.O_PATH, path);
}

/** For reading it, if it is a file: what has this name may change at any time. */
export function openFile(directory: number, name: Uint8Array, path: Uint8Array): number {
  const object = openObject(directory, name, path);
  try {
    if (statusOfOpen(object, path).type !== 'file') throw refused(-k.ESTALE, 'openat2', path);
    // Not waiting: whoever has a lease on it could hold us for /proc/sys/fs/lease-break-time, for each file (fcntl(2), F_SETLEASE).
    return must(native().files.reopen(object, k.O_RDONLY | k.O_NONBLOCK), 'open', path);
  } finally {
    close(object);
  }
}

export function close(fd: number): void {
  native().close(fd);
}

export function linkTarget(directory: number, name: Uint8Array, path: Uint8Array): Buffer {
  return mustBe(native().files.readLink(directory, name), 'readlinkat', path);
}

/** Extended attributes by name; names as latin1, so that every byte is a character. */
export type Attributes = ReadonlyMap<string, Buffer>;

/** Of any object, by a descriptor of any kind. */
export function attributesOf(object: number, path: Uint8Array): Attributes {
  const names = native().files.listAttributes(object);
  // A file system without them has none.
  if (names === -k.EOPNOTSUPP) return none;
  const list = mustBe(names, 'listxattr', path);
  if (list.length === 0) return none;
  const attributes = new Map<string, Buffer>();
  for (const name of split(list)) {
    const value = native().files.getAttribute(object, name);
    // Gone meanwhile; or a security module's, listed and not to be had.
    if (typeof value !== 'number') attributes.set(name.toString('latin1'), value);
  }
  return attributes;
}
const none: Attributes = new Map();

export function attribute(object: number, name: string, path: Uint8Array): Buffer | undefined {
  const value = native().files.getAttribute(object, Buffer.from(name, 'latin1'));
  if (value === -k.ENODATA || value === -k.EOPNOTSUPP) return undefined;
  return mustBe(value, 'getxattr', path);
}
