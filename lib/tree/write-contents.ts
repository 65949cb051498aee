import { native } from '../native.js';
import * as files from './files.js';
import type { Segment } from './tar-sparse.js';

const zeros = Buffer.alloc(2 ** 18);

/** Zeros become holes, whatever the tar stored them as. `begins` is told each part before its content is asked for. */
export function writeContents(
  fd: number,
  { size, segments }: { readonly size: number; readonly segments: readonly Segment[] | undefined },
  content: (most: number) => Buffer,
  path: Buffer,
  begins?: (part: Segment) => void,
): void {
  let written = 0;
  for (const { offset, length } of segments ?? [{ offset: 0, length: size }]) {
    if (length > 0) begins?.({ offset, length });
    for (let done = 0; done < length; ) {
      const bytes = content(length - done);
      if (!isZero(bytes)) {
        writeAll(fd, bytes, offset + done, path);
        written = offset + done + bytes.length;
      }
      done += bytes.length;
    }
  }
  if (written < size) files.must(native().files.truncate(fd, size), 'ftruncate', path);
}

export function writeAll(fd: number, bytes: Uint8Array, position: number, path: Buffer): void {
  for (let at = 0; at < bytes.length; ) {
    at += files.must(native().files.write(fd, bytes, at, bytes.length - at, position + at), 'pwrite64', path);
  }
}

/** A piece that is shorter than a page is not worth a hole. */
function isZero(bytes: Buffer): boolean {
  return bytes.length >= 4096 && bytes[0] === 0 && bytes.length <= zeros.length && bytes.equals(zeros.subarray(0, bytes.length));
}
