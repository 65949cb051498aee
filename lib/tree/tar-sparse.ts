import { layerError } from './layer-error.js';
import type { Pax } from './pax.js';
import { parseDecimal, parseNumber } from './tar-numbers.js';

// Sparse files as GNU tar stores them: in headers of its own ('S'), and in PAX records, versions 0.0, 0.1 and 1.0 (tar's manual, "Storing
// Sparse Files"). Contents are stored without the holes; a map says where they belong.

export interface Segment {
  readonly offset: number;
  readonly length: number;
}

export interface SparseFile {
  /** With its holes. */
  readonly size: number;
  readonly segments: readonly Segment[];
}

/** A map has 16 MiB at the most. */
const mostSegments = 2 ** 20;

/** Of a PAX entry; undefined if it is not sparse. `block` reads a piece of its contents. */
export function sparseOf(pax: Pax, stored: number, path: Buffer, block: (most: number) => Buffer, blockSize: number): SparseFile | undefined {
  const major = pax.get('GNU.sparse.major')?.toString('latin1');
  const minor = pax.get('GNU.sparse.minor')?.toString('latin1');
  const told = pax.get('GNU.sparse.realsize') ?? pax.get('GNU.sparse.size');
  const map = pax.get('GNU.sparse.map');
  if (major === undefined && minor === undefined && map === undefined) return undefined;
  if (!told) throw layerError(path, 'it is sparse, and its size is not told');
  const size = parseDecimal(told, 'size', path);
  if (major === '1' && minor === '0') {
    const { numbers, used } = mapInContents(stored, path, block, blockSize);
    return checked(numbers, size, stored - used, path);
  }
  if (map && (major === undefined || major === '0'))
    return checked(
      map
        .toString('latin1')
        .split(',')
        .map((text) => parseDecimal(Buffer.from(text), 'map', path)),
      size,
      stored,
      path,
    );
  throw layerError(path, `it is sparse in a way that is not known (${JSON.stringify(major)}, ${JSON.stringify(minor)})`);
}

/** Version 1.0: decimal numbers, each on a line, before the contents and in whole blocks: how many pairs there are, then those. */
function mapInContents(stored: number, path: Buffer, block: (most: number) => Buffer, blockSize: number): { numbers: number[]; used: number } {
  let text = '';
  let used = 0;
  const line = (): number => {
    for (let end = text.indexOf('\n'); ; end = text.indexOf('\n')) {
      if (end >= 0) {
        const digits = text.slice(0, end);
        text = text.slice(end + 1);
        return parseDecimal(Buffer.from(digits), 'map', path);
      }
      if (used + blockSize > stored || text.length > 40) throw layerError(path, 'the map of a sparse file is broken');
      for (let left = blockSize; left > 0; ) {
        const bytes = block(left);
        text += bytes.toString('latin1');
        left -= bytes.length;
      }
      used += blockSize;
    }
  };
  const pairs = line();
  if (pairs > mostSegments) throw layerError(path, `a sparse file of ${pairs} parts`);
  const numbers: number[] = [];
  for (let i = 0; i < pairs * 2; i++) numbers.push(line());
  return { numbers, used };
}

/** Of GNU's own header: four parts, and 21 in each block that follows. */
export function gnuSparseMap(header: Buffer, stored: number, path: Buffer, more: () => Buffer): SparseFile {
  const numbers: number[] = [];
  const take = (from: Buffer, at: number, count: number): void => {
    for (let i = 0; i < count; i++) {
      const field = from.subarray(at + i * 24, at + i * 24 + 24);
      if (field[0] === 0) break;
      numbers.push(parseNumber(field.subarray(0, 12), 'map', path), parseNumber(field.subarray(12), 'map', path));
    }
  };
  take(header, 386, 4);
  for (let extended = header[482] !== 0; extended; ) {
    const block = more();
    take(block, 0, 21);
    extended = block[504] !== 0;
    if (numbers.length > mostSegments) throw layerError(path, 'a sparse file of too many parts');
  }
  return checked(numbers, parseNumber(header.subarray(483, 495), 'size', path), stored, path);
}

function checked(numbers: readonly number[], size: number, stored: number, path: Buffer): SparseFile {
  const segments: Segment[] = [];
  let end = 0;
  let sum = 0;
  if (numbers.length % 2 !== 0 || size < 0) throw layerError(path, 'the map of a sparse file is broken');
  for (let i = 0; i < numbers.length; i += 2) {
    const [offset, length] = [numbers[i] as number, numbers[i + 1] as number];
    if (offset < end || length < 0 || offset + length > size) throw layerError(path, 'the parts of a sparse file overlap, or lie behind its end');
    end = offset + length;
    sum += length;
    if (length > 0) segments.push({ offset, length });
  }
  if (sum !== stored) throw layerError(path, 'the parts of a sparse file are not what is stored of it');
  return { size, segments };
}
