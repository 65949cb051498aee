import { optionError } from './errors.js';

/** Bytes: a number, or a number with a unit of 1024. A string's form is checked at run time as well. */
export type Bytes = number | `${number}${'K' | 'M' | 'G' | 'T'}`;
export type Limit = Bytes | 'max';

const units: Readonly<Record<string, number>> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

export function parseBytes(value: unknown, option: string): number {
  const match = typeof value === 'string' ? /^(\d+(?:\.\d+)?)([KMGT])$/.exec(value) : null;
  const bytes = match ? Math.floor(Number(match[1]) * (units[match[2] as string] as number)) : value;
  if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 0) {
    throw optionError(option, "bytes: a number of them, or a string such as '512M' (K, M, G, T are powers of 1024)", value);
  }
  return bytes;
}

/** Of a tmpfs, 0 is no limit at all: tmpfs(5). */
export function parseSize(value: unknown, option: string): number {
  const size = parseBytes(value, option);
  if (size === 0) throw optionError(option, 'more than 0 bytes', value);
  return size;
}
