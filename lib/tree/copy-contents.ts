import { native } from '../native.js';
import * as k from '../plan/constants.js';
import * as files from './files.js';
import { writeAll } from './write-contents.js';

const buffer = Buffer.allocUnsafe(2 ** 17);

/** Holes stay holes; where both are on one file system that can, the blocks are shared (copy_file_range(2)). */
export function copyContents(from: number, to: number, size: number, path: Buffer): void {
  for (let at = 0; at < size; ) {
    const data = native().files.seek(from, at, true);
    if (data === -k.ENXIO) break;
    const begin = data < 0 ? at : data;
    const hole = data < 0 ? size : native().files.seek(from, begin, false);
    // Somebody has made it shorter in between.
    if (hole < 0) break;
    const end = Math.min(hole, size);
    if (!copyPiece(from, to, begin, end, path)) break;
    at = end;
  }
  files.must(native().files.truncate(to, size), 'ftruncate', path);
}

function copyPiece(from: number, to: number, begin: number, end: number, path: Buffer): boolean {
  for (let at = begin; at < end; ) {
    const copied = native().files.copyRange(from, to, at, end - at);
    if (copied === 0) return false;
    if (copied > 0) {
      at += copied;
      continue;
    }
    // Between file systems, or of one that cannot.
    const count = files.must(native().files.read(from, buffer, 0, Math.min(buffer.length, end - at), at), 'pread64', path);
    if (count === 0) return false;
    writeAll(to, buffer.subarray(0, count), at, path);
    at += count;
  }
  return true;
}
