// The `stdio` and `tty` options, checked.

import { Stream } from 'node:stream';
import { optionError } from '../errors.js';
import type { Settings } from './settings.js';
import type { SpawnOptions, StdioOption } from './types.js';
import * as check from './validate.js';

export function isPiped(stdio: StdioOption): boolean {
  return stdio === 'pipe' || stdio === undefined || stdio === null;
}

export function ttyOf(value: SpawnOptions['tty']): Settings['tty'] {
  if (value === undefined || value === false) return undefined;
  if (value === true) return { columns: 80, rows: 24 };
  if (value === null || typeof value !== 'object') throw optionError('tty', 'true, false or { columns, rows }', value);
  check.onlyKeys(value, 'tty', ['columns', 'rows']);
  return { columns: check.integer(value.columns, 'tty.columns', 1, 65535), rows: check.integer(value.rows, 'tty.rows', 1, 65535) };
}

export function stdioOf(value: SpawnOptions['stdio'], tty: boolean): StdioOption[] {
  if (tty && value !== undefined) throw optionError('stdio', 'nothing with tty: the three streams are the terminal', value);
  if (tty) return ['pipe', 'pipe', 'ignore'];
  if (value === undefined) return ['pipe', 'pipe', 'pipe'];
  if (typeof value === 'string') {
    const all = check.oneOf(value, 'stdio', ['pipe', 'ignore', 'inherit']);
    return [all, all, all];
  }
  if (!Array.isArray(value)) throw optionError('stdio', "'pipe', 'ignore', 'inherit' or an array", value);
  const result = (value as StdioOption[]).map((entry, index) => stdioEntry(entry, index));
  while (result.length < 3) result.push('pipe');
  // Slots of a plan are few, and so are the descriptors that anybody passes on.
  if (result.length > 32) throw optionError('stdio', 'at most 32 entries', value);
  return result;
}

function stdioEntry(entry: StdioOption, index: number): StdioOption {
  const option = `stdio[${index}]`;
  if (entry === null || entry === undefined) return index < 3 ? 'pipe' : 'ignore';
  if (typeof entry === 'string') return check.oneOf(entry, option, ['pipe', 'ignore', 'inherit']);
  if (typeof entry === 'number') return check.integer(entry, option, 0, 0x7fffffff);
  if (entry instanceof Stream) {
    if (streamDescriptor(entry) === undefined) throw optionError(option, 'a stream with a descriptor, once it is open', entry);
    return entry;
  }
  throw optionError(option, "'pipe', 'ignore', 'inherit', a descriptor or a stream that has one", entry);
}

/** The descriptor of a socket, a pipe, a terminal or an open file stream. */
export function streamDescriptor(stream: Stream): number | undefined {
  const { fd, _handle } = stream as unknown as { fd?: unknown; _handle?: { fd?: unknown } | null };
  if (typeof fd === 'number' && fd >= 0) return fd;
  return typeof _handle?.fd === 'number' && _handle.fd >= 0 ? _handle.fd : undefined;
}
