import { harmless } from '../text.js';

// Names of a tree are bytes; strings are only for people.

const slash = Buffer.from('/');

/** Paths inside a tree are relative, without a slash at either end; the tree itself is ''. */
export function join(directory: Buffer, name: Buffer): Buffer {
  return directory.length === 0 ? name : Buffer.concat([directory, slash, name]);
}

export function components(path: Buffer): Buffer[] {
  const names: Buffer[] = [];
  for (let start = 0; start < path.length; ) {
    const end = path.indexOf(0x2f, start);
    names.push(path.subarray(start, end < 0 ? path.length : end));
    start = end < 0 ? path.length : end + 1;
  }
  return names;
}

/** Bytes that are not UTF-8 become U+FFFD. */
export function pathText(path: Uint8Array): string {
  return `/${Buffer.from(path.buffer, path.byteOffset, path.byteLength).toString('utf8')}`;
}

/** For messages. */
export const printable = (path: Uint8Array): string => harmless(pathText(path));
