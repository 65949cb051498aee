import { blockSize, checksum, padding, type TarEntry, typeFlags } from './tar-entry.js';
import type { Segment } from './tar-sparse.js';

// Headers of a tar whose bytes follow from its entries alone: ustar where that can say it, else one PAX header before it, with its
// records in order. pax(1); image-spec's layer.md. No times but the last modification, no names of owners.

/** What a numeric field of so many bytes (one is a NUL) can say. */
const most = (width: number): number => 8 ** (width - 1) - 1;

export function encodeHeader(entry: TarEntry): Buffer {
  const path = entry.type === 'directory' ? Buffer.concat([entry.path, Buffer.from('/')]) : entry.path;
  return encode({ ...entry, path }, path.length > 100 ? [['path', path]] : []);
}

/**
 * Of a file of which only parts are stored, in `stored` bytes, behind a map of them: tar's manual, "Storing Sparse Files", version 1.0. A program
 * that does not know that makes a file of another name. A record `path` beside the name that is meant would win in Python's tarfile.
 */
export function encodeSparseHeader(entry: TarEntry, stored: number): Buffer {
  const slash = entry.path.lastIndexOf(0x2f) + 1;
  const plain = Buffer.concat([entry.path.subarray(0, slash), Buffer.from('GNUSparseFile.0/'), entry.path.subarray(slash)]);
  // Cut off anywhere it could end with a slash, and be taken for a directory.
  const path = plain.length > 100 ? plain.subarray(slash, slash + 100) : plain;
  return encode({ ...entry, path, size: stored }, [
    ['GNU.sparse.major', Buffer.from('1')],
    ['GNU.sparse.minor', Buffer.from('0')],
    ['GNU.sparse.name', entry.path],
    ['GNU.sparse.realsize', Buffer.from(String(entry.size))],
  ]);
}

/** How many parts there are, then where each begins and how long it is. GNU tar sees by an empty one at the end that the file goes on to there. */
export function encodeSparseMap(ranges: readonly Segment[], size: number): Buffer {
  const last = ranges.at(-1);
  const all = last && last.offset + last.length === size ? ranges : [...ranges, { offset: size, length: 0 }];
  const text = Buffer.from(`${all.length}\n${all.map(({ offset, length }) => `${offset}\n${length}\n`).join('')}`, 'latin1');
  return Buffer.concat([text, Buffer.alloc(padding(text.length))]);
}

function encode(entry: TarEntry, records: [key: string, value: Buffer][]): Buffer {
  const say = (key: string, value: string | Buffer): void => void records.push([key, Buffer.from(value as string)]);

  if (entry.target.length > 100) say('linkpath', entry.target);
  if (entry.uid > most(8)) say('uid', String(entry.uid));
  if (entry.gid > most(8)) say('gid', String(entry.gid));
  if (entry.size > most(12)) say('size', String(entry.size));
  if (entry.nanoseconds !== 0 || entry.seconds < 0 || entry.seconds > most(12)) say('mtime', timeText(entry));
  for (const [name, value] of entry.attributes) say(`SCHILY.xattr.${encodeKeyword(name)}`, value);

  const header = ustar(entry, typeFlags[entry.type]);
  if (records.length === 0) return header;
  const body = Buffer.concat(sorted(records).map(([key, value]) => record(key, value)));
  const whole = entry.type === 'directory' ? entry.path.subarray(0, -1) : entry.path;
  const base = whole.subarray(whole.lastIndexOf(0x2f) + 1).subarray(0, 80);
  const about = {
    path: Buffer.concat([Buffer.from('PaxHeaders.0/'), base]),
    target: Buffer.alloc(0),
    ...{ mode: 0o644, uid: 0, gid: 0, size: body.length, seconds: 0, nanoseconds: 0, major: 0, minor: 0 },
  };
  return Buffer.concat([ustar(about, 'x'), body, Buffer.alloc(padding(body.length)), header]);
}

function sorted(records: [string, Buffer][]): [string, Buffer][] {
  return records.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
}

function ustar(entry: Omit<TarEntry, 'type' | 'attributes'>, flag: string): Buffer {
  const header = Buffer.alloc(blockSize);
  entry.path.copy(header, 0, 0, 100);
  const octal = (value: number, at: number, width: number): void => {
    const fits = value >= 0 && value <= most(width) ? value : 0;
    header.write(fits.toString(8).padStart(width - 1, '0'), at, 'latin1');
  };
  octal(entry.mode, 100, 8);
  octal(entry.uid, 108, 8);
  octal(entry.gid, 116, 8);
  octal(entry.size, 124, 12);
  octal(entry.seconds, 136, 12);
  header.write(flag, 156, 'latin1');
  entry.target.copy(header, 157, 0, 100);
  header.write('ustar\x0000', 257, 'latin1');
  octal(entry.major, 329, 8);
  octal(entry.minor, 337, 8);
  header.write(`${checksum(header).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

/** "%d %s=%s\n", with its own length before it. */
function record(key: string, value: Buffer): Buffer {
  const rest = Buffer.byteLength(key, 'latin1') + value.length + 3;
  let length = rest + String(rest).length;
  // The number itself may have made it longer by one digit.
  if (String(length).length > String(rest).length) length++;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, 'latin1'), value, Buffer.from('\n')]);
}

/** Seconds with a fraction, also below zero: -1.5 is half a second before -1. */
function timeText({ seconds, nanoseconds }: { readonly seconds: number; readonly nanoseconds: number }): string {
  if (nanoseconds === 0) return String(seconds);
  const negative = seconds < 0;
  const whole = negative ? -seconds - 1 : seconds;
  const fraction = String(negative ? 1e9 - nanoseconds : nanoseconds)
    .padStart(9, '0')
    .replace(/0+$/, '');
  return `${negative ? '-' : ''}${whole}.${fraction}`;
}

/** A keyword ends at the first '=': GNU tar's xattr_encode_keyword writes those of a name as %3D, and % as %25. */
function encodeKeyword(name: string): string {
  return name.replace(/[%=]/g, (character) => (character === '%' ? '%25' : '%3D'));
}
