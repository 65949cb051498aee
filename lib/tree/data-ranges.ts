import { native } from '../native.js';
import * as k from '../plan/constants.js';
import * as files from './files.js';
import { layerError } from './layer-error.js';
import type { Segment } from './tar-sparse.js';

// Which parts of a file a layer's tar has, if it has not all of it: a program can make a file of 4 PiB by one system call, and nobody can
// write, compress or hash the zeros of it.
//
// That follows from the file's bytes alone: zeros that are written are like a hole. What file systems tell of holes depends on how they
// allocate (blocks of other sizes, zeros that are compressed away, room that is kept ready), and extraction makes holes of zeros as well
// (write-contents.ts). So the same content makes the same tar on any of them, before and after it was extracted. SEEK_DATA is only asked
// for what need not be read.

/** Of zeros in a file, at least: image-spec says that sparse files SHOULD NOT be used, so others are written as they are. */
const leastHoles = 2 ** 20;

/** What is looked at for zeros. */
const page = 4096;

/** A hole is made of these, at first: smaller ones are in many files, and not worth an entry that not all tools can read. */
const firstBlock = 2 ** 16;

/** Go's archive/tar, by which most tools read layers, takes a map of 1 MiB: so many pairs of 16 digits and a newline each. */
const mostRanges = 30_000;

/** How many times the pages that are not zeros the tar may have. With blocks of the first size it is never more. */
const mostFilled = firstBlock / page;

const zeros = Buffer.alloc(page);
const buffer = Buffer.allocUnsafe(2 ** 17);

/** In their order, and not touching each other; undefined: all of it is to be written. */
export function dataRanges(file: number, size: number, path: Buffer, most = mostRanges): readonly Segment[] | undefined {
  if (size < leastHoles) return undefined;
  const found = new Ranges(size, most);
  let pages = 0;
  for (const { offset, length } of written(file, size)) {
    for (let at = 0; at < length; ) {
      const count = readFully(file, offset + at, Math.min(buffer.length, length - at), path);
      for (let start = 0; start < count; start += page) {
        const end = Math.min(start + page, count);
        if (buffer[start] === 0 && zeros.compare(buffer, start, end, 0, end - start) === 0) continue;
        found.add(offset + at + start, offset + at + end);
        pages++;
      }
      // It is shorter by now.
      if (count === 0) break;
      at += count;
    }
  }
  const segments = found.segments();
  const stored = segments.reduce((sum, { length }) => sum + length, 0);
  if (stored > mostFilled * page * pages) {
    throw layerError(path, `it is sparse, and its data lie in more than ${most} places that are far apart`, 'No tar can tell of so many of them.');
  }
  return size - stored < leastHoles ? undefined : segments;
}

/** What is no hole, in whole pages. */
function* written(file: number, size: number): Generator<Segment, void, undefined> {
  for (let at = 0; at < size; ) {
    const data = native().files.seek(file, at, true);
    // Only a hole is left.
    if (data === -k.ENXIO || data >= size) return;
    // A file system that does not tell holes (EINVAL) has none.
    const offset = data < 0 ? at : data - (data % page);
    const hole = data < 0 ? size : native().files.seek(file, data, false);
    // Somebody has made it shorter in between.
    if (hole < 0) return;
    const end = Math.min(hole + ((page - (hole % page)) % page), size);
    yield { offset, length: end - offset };
    at = end;
  }
}

function readFully(file: number, offset: number, length: number, path: Buffer): number {
  let done = 0;
  while (done < length) {
    const count = files.must(native().files.read(file, buffer, done, length - done, offset + done), 'pread64', path);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/**
 * Whole blocks that have data in them. Where there are too many ranges for a map, blocks are twice as large, as often as it takes: that follows
 * from the content as well, for what has been found by then could not become fewer ranges by anything that is found later.
 */
class Ranges {
  readonly #size: number;
  readonly #most: number;
  #block = firstBlock;
  #found: { begin: number; end: number }[] = [];

  constructor(size: number, most: number) {
    this.#size = size;
    this.#most = most;
  }

  add(begin: number, end: number): void {
    this.#include(begin, end);
    while (this.#found.length > this.#most) {
      this.#block *= 2;
      const smaller = this.#found;
      this.#found = [];
      for (const range of smaller) this.#include(range.begin, range.end);
    }
  }

  segments(): Segment[] {
    return this.#found.map(({ begin, end }) => ({ offset: begin, length: end - begin }));
  }

  #include(begin: number, end: number): void {
    const from = begin - (begin % this.#block);
    const to = Math.min(end + ((this.#block - (end % this.#block)) % this.#block), this.#size);
    const last = this.#found.at(-1);
    if (last && from <= last.end) last.end = Math.max(last.end, to);
    else this.#found.push({ begin: from, end: to });
  }
}
