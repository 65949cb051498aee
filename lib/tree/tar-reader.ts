import type { Attributes } from './files.js';
import { layerError } from './layer-error.js';
import { type Pax, parsePax } from './pax.js';
import type { ByteSource } from './streams.js';
import { blockSize, checksum, padding, type TarEntry, type TarType, typeFlags } from './tar-entry.js';
import { parseDecimal, parseNumber, parseTime } from './tar-numbers.js';
import { gnuSparseMap, type Segment, type SparseFile, sparseOf } from './tar-sparse.js';

// A tar as strangers write them: v7, ustar, PAX (pax(1)), and GNU (tar's manual, "Basic Tar Format"). What could be read in two ways
// is refused: one tool would check what another one unpacks.

/** PAX records and long names of one entry; the largest extended attribute has 64 KiB. */
const mostExtended = 2 ** 22;

const byFlag = new Map<string, TarType>([...Object.entries(typeFlags).map(([type, flag]) => [flag, type as TarType] as const), ['\0', 'file'], ['7', 'file']]);

export interface ReadEntry extends TarEntry {
  /** Where the contents lie in the file; undefined: they are all of it. */
  readonly segments: readonly Segment[] | undefined;
}

export class TarReader {
  readonly #source: ByteSource;
  #pending = 0;
  #extendedBytes = 0;
  readonly #global = new Map<string, Buffer>();

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** The next entry, or undefined at the end of the archive. */
  next(): ReadEntry | undefined {
    this.#skip(this.#pending);
    this.#pending = 0;
    this.#extendedBytes = 0;
    const pax: Pax = new Map();
    let longName: Buffer | undefined;
    let longTarget: Buffer | undefined;
    for (let prefixed = false; ; prefixed = true) {
      const header = this.#header(prefixed);
      if (!header) return undefined;
      const flag = String.fromCharCode(header[156] as number);
      const size = (): number => parseNumber(header.subarray(124, 136), 'size', nameOf(header));
      if (flag === 'x' || flag === 'X') for (const [key, value] of parsePax(this.#extended(size()))) pax.set(key, value);
      else if (flag === 'g') this.#setGlobal(parsePax(this.#extended(size())));
      else if (flag === 'L') longName = cString(this.#extended(size()));
      else if (flag === 'K') longTarget = cString(this.#extended(size()));
      else if (flag === 'V') this.#skip(size() + padding(size()));
      else return this.#entry(header, flag, this.#global.size === 0 ? pax : new Map([...this.#global, ...pax]), longName, longTarget);
    }
  }

  /** Contents of the entry that was last given, in pieces: good until the next call. */
  content(most: number): Buffer {
    const bytes = this.#source.some(most);
    if (!bytes) throw layerError(undefined, 'the tar is cut short in the middle of a file');
    this.#pending -= bytes.length;
    return bytes;
  }

  /** What follows the archive belongs to the stream, and to its digest. */
  drain(): void {
    while (this.#source.some(2 ** 18));
  }

  #entry(header: Buffer, flag: string, pax: Pax, longName: Buffer | undefined, longTarget: Buffer | undefined): ReadEntry {
    const plain = longName ?? nameOf(header);
    const named = pax.get('GNU.sparse.name') ?? pax.get('path') ?? plain;
    const type = flag === 'S' ? 'file' : byFlag.get(flag);
    if (!type) throw layerError(named, `it is of a kind (${JSON.stringify(flag)}) that a layer does not have`);
    const directory = type === 'directory' || (type === 'file' && flag !== 'S' && named.at(-1) === 0x2f);
    const path = trimSlashes(named);
    if (path.includes(0)) throw layerError(path, 'its name has a NUL in it');
    const number = (key: string, from: number, to: number): number => {
      const value = pax.get(key);
      return value ? parseDecimal(value, key, path) : parseNumber(header.subarray(from, to), key, path);
    };
    let stored = number('size', 124, 136);
    if (stored < 0) throw layerError(path, 'its size is below zero');
    if (type !== 'file' || directory) {
      // GNU tar and Go's archive/tar take a hard link for one without contents whatever its size is; in others it is refused.
      if (stored !== 0 && type !== 'link') throw layerError(path, `it has a size, but a ${directory ? 'directory' : type} has no contents`);
      stored = 0;
    }
    let sparse: SparseFile | undefined;
    this.#pending = stored + padding(stored);
    if (flag === 'S') sparse = this.#oldSparse(header, path, stored);
    else if (type === 'file' && !directory) sparse = sparseOf(pax, stored, path, (most) => this.content(most), blockSize);
    const uid = number('uid', 108, 116);
    const gid = number('gid', 116, 124);
    for (const [what, id] of [
      ['uid', uid],
      ['gid', gid],
    ] as const) {
      if (id < 0 || id >= 0xffffffff) throw layerError(path, `its ${what} is ${id}`);
    }
    const mtime = pax.get('mtime');
    const time = mtime ? parseTime(mtime, path) : { seconds: parseNumber(header.subarray(136, 148), 'mtime', path), nanoseconds: 0 };
    const target = pax.get('linkpath') ?? longTarget ?? cString(header.subarray(157, 257));
    if (target.includes(0)) throw layerError(path, 'the name that it links to has a NUL in it');
    const isDevice = type === 'char-device' || type === 'block-device';
    return {
      type: directory ? 'directory' : type,
      path,
      mode: parseNumber(header.subarray(100, 108), 'mode', path) & 0o7777,
      uid,
      gid,
      size: sparse ? sparse.size : stored,
      ...time,
      target,
      major: isDevice ? parseNumber(header.subarray(329, 337), 'device number', path) : 0,
      minor: isDevice ? parseNumber(header.subarray(337, 345), 'device number', path) : 0,
      attributes: attributesIn(pax),
      segments: sparse?.segments,
    };
  }

  #oldSparse(header: Buffer, path: Buffer, stored: number): SparseFile {
    // The blocks of the map come before the contents and are not counted in the size.
    const more = (): Buffer => this.#block(path);
    return gnuSparseMap(header, stored, path, more);
  }

  #header(prefixed: boolean): Buffer | undefined {
    const header = Buffer.from(this.#source.exactly(blockSize));
    if (header.length === blockSize && header.some((byte) => byte !== 0)) return verified(header);
    if (prefixed) throw layerError(undefined, 'the tar ends where the entry of an extended header should be');
    if (header.length === blockSize) {
      // The end is two blocks of zeros; a lone one at the very end is what some old programs write.
      const second = this.#source.exactly(blockSize);
      if (second.some((byte) => byte !== 0)) throw layerError(undefined, 'the tar goes on behind a block of zeros');
      return undefined;
    }
    throw layerError(undefined, 'the tar is cut short: there is no end of it', 'A tar ends with two blocks of zeros.');
  }

  #block(path: Buffer): Buffer {
    const block = this.#source.exactly(blockSize);
    if (block.length < blockSize) throw layerError(path, 'the tar is cut short');
    return Buffer.from(block);
  }

  #extended(size: number): Buffer {
    this.#extendedBytes += size;
    if (size < 0 || this.#extendedBytes > mostExtended) throw layerError(undefined, `extended headers of ${this.#extendedBytes} bytes before one entry`);
    const bytes = Buffer.from(this.#source.exactly(size));
    if (bytes.length < size) throw layerError(undefined, 'the tar is cut short in an extended header');
    this.#skip(padding(size));
    return bytes;
  }

  #setGlobal(records: Pax): void {
    for (const [key, value] of records) {
      // git archive leaves a comment here. A name, a size or a link for all that follow is nothing but a trap.
      if (/^(path|linkpath|size|GNU\.sparse\..*|SCHILY\.xattr\..*)$/.test(key)) {
        throw layerError(undefined, `a global header sets ${JSON.stringify(key.slice(0, 60))} for all entries`);
      }
      if (/^(uid|gid|mtime)$/.test(key)) this.#global.set(key, value);
    }
  }

  #skip(count: number): void {
    for (let left = count; left > 0; ) {
      const bytes = this.#source.some(left);
      if (!bytes) throw layerError(undefined, 'the tar is cut short');
      left -= bytes.length;
    }
  }
}

function verified(header: Buffer): Buffer {
  const told = /^[ 0]*([0-7]+)[ \0]*$/.exec(header.toString('latin1', 148, 156))?.[1];
  const sum = told === undefined ? undefined : Number.parseInt(told, 8);
  // Some old programs have added the bytes up as signed ones.
  if (sum !== checksum(header) && sum !== checksum(header, (byte) => (byte << 24) >> 24)) {
    throw layerError(undefined, 'this is no tar, or it is damaged: a header has a wrong checksum');
  }
  return header;
}

/** ustar has a prefix for long names; in GNU's headers other things are there. */
function nameOf(header: Buffer): Buffer {
  const name = cString(header.subarray(0, 100));
  if (header.toString('latin1', 257, 263) !== 'ustar\0') return name;
  const prefix = cString(header.subarray(345, 500));
  return prefix.length === 0 ? name : Buffer.concat([prefix, Buffer.from('/'), name]);
}

function cString(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0);
  return end < 0 ? bytes : bytes.subarray(0, end);
}

function trimSlashes(path: Buffer): Buffer {
  let end = path.length;
  while (end > 1 && path[end - 1] === 0x2f) end--;
  return path.subarray(0, end);
}

const xattrPrefix = 'SCHILY.xattr.';

function attributesIn(pax: Pax): Attributes {
  const attributes = new Map<string, Buffer>();
  for (const [key, value] of pax) {
    if (!key.startsWith(xattrPrefix)) continue;
    attributes.set(
      key.slice(xattrPrefix.length).replace(/%(25|3D)/g, (_, code) => (code === '25' ? '%' : '=')),
      value,
    );
  }
  return attributes;
}
