import type { Attributes } from './files.js';

export const blockSize = 512;

export type TarType = 'file' | 'link' | 'symlink' | 'char-device' | 'block-device' | 'directory' | 'fifo';

/** pax(1), "ustar Interchange Format". */
export const typeFlags: Readonly<Record<TarType, string>> = {
  file: '0',
  link: '1',
  symlink: '2',
  'char-device': '3',
  'block-device': '4',
  directory: '5',
  fifo: '6',
};

export interface TarEntry {
  readonly type: TarType;
  /** Without a slash at its end; '.' may be part of it when read. */
  readonly path: Buffer;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of the file; 0 for what has no contents. */
  readonly size: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  /** Of a symlink, or the path of what a hard link is another name of. */
  readonly target: Buffer;
  readonly major: number;
  readonly minor: number;
  readonly attributes: Attributes;
}

export const padding = (size: number): number => (blockSize - (size % blockSize)) % blockSize;

/** The sum that a header must have, its own field counted as spaces. */
export function checksum(header: Buffer, byte: (value: number) => number = (value) => value): number {
  let sum = 8 * 0x20;
  for (let i = 0; i < blockSize; i++) if (i < 148 || i >= 156) sum += byte(header[i] as number);
  return sum;
}
