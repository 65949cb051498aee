import { native } from '../native.js';
import * as k from '../plan/constants.js';
import * as files from './files.js';
import { ownAttributes } from './overlay-attributes.js';

/** An entry of a directory that is open. */
export interface Place {
  readonly directory: number;
  readonly name: Buffer;
  /** In the tree. */
  readonly path: Buffer;
  readonly status: files.Status;
}

export const timesDiffer = (a: files.Status, b: files.Status): boolean => a.seconds !== b.seconds || a.nanoseconds !== b.nanoseconds;

/** Permissions, owners, device numbers, extended attributes. */
export function metadataDiffers(a: Place, b: Place): boolean {
  const [x, y] = [a.status, b.status];
  if (x.mode !== y.mode || x.uid !== y.uid || x.gid !== y.gid || x.major !== y.major || x.minor !== y.minor) return true;
  return attributesDiffer(attributesAt(a), attributesAt(b));
}

export function attributesAt({ directory, name, path }: Place): files.Attributes {
  const object = files.openObject(directory, name, path);
  try {
    return ownAttributes(files.attributesOf(object, path));
  } finally {
    files.close(object);
  }
}

function attributesDiffer(a: files.Attributes, b: files.Attributes): boolean {
  return a.size !== b.size || [...a].some(([name, value]) => !b.get(name)?.equals(value));
}

/** Of two of the same type, and for files of the same size. */
export function contentsDiffer(a: Place, b: Place, openA: (() => number) | undefined = undefined): boolean {
  if (a.status.type === 'symlink') {
    return !files.linkTarget(a.directory, a.name, a.path).equals(files.linkTarget(b.directory, b.name, b.path));
  }
  if (a.status.type !== 'file' || a.status.size === 0) return false;
  const one = openA ? openA() : files.openFile(a.directory, a.name, a.path);
  try {
    const other = files.openFile(b.directory, b.name, b.path);
    try {
      return bytesDiffer(one, other, a.path);
    } finally {
      files.close(other);
    }
  } finally {
    files.close(one);
  }
}

const [left, right] = [Buffer.allocUnsafe(2 ** 17), Buffer.allocUnsafe(2 ** 17)];

function bytesDiffer(one: number, other: number, path: Buffer): boolean {
  for (let at = 0; ; ) {
    // What is a hole in both is the same, and may be larger than anybody could read.
    at = Math.min(dataFrom(one, at), dataFrom(other, at));
    if (at === Number.POSITIVE_INFINITY) return false;
    const count = readFully(one, left, at, path);
    if (count !== readFully(other, right, at, path) || !left.subarray(0, count).equals(right.subarray(0, count))) return true;
    if (count === 0) return false;
    at += count;
  }
}

/** Where data begin, at `at` or behind it; where a file system does not tell holes (EINVAL), there. */
function dataFrom(fd: number, at: number): number {
  const data = native().files.seek(fd, at, true);
  return data === -k.ENXIO ? Number.POSITIVE_INFINITY : data < 0 ? at : data;
}

function readFully(fd: number, into: Buffer, position: number, path: Buffer): number {
  let done = 0;
  while (done < into.length) {
    const count = files.must(native().files.read(fd, into, done, into.length - done, position + done), 'pread64', path);
    if (count === 0) break;
    done += count;
  }
  return done;
}
