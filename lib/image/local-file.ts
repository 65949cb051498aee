import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { ImageError } from '../errors.js';

/** A regular file, and never a fifo that nobody writes to or a device without an end: a layout's names are a stranger's. */
export async function openRegular(path: string, following = false): Promise<{ file: FileHandle; size: number }> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | (following ? 0 : constants.O_NOFOLLOW));
  } catch (cause) {
    const { errno, syscall, code } = cause as NodeJS.ErrnoException;
    if (code === 'ELOOP') throw irregular(path, 'a symbolic link');
    throw ImageError.ofErrno(code === 'ENOENT' || code === 'ENOTDIR' ? 'ERR_CLOISTER_NOT_FOUND' : 'ERR_CLOISTER_IMAGE', errno ?? -5, {
      step: 'open',
      syscall,
      path,
      cause,
    });
  }
  try {
    const status = await file.stat();
    if (!status.isFile()) throw irregular(path, 'no regular file');
    return { file, size: status.size };
  } catch (error) {
    await file.close();
    throw error;
  }
}

function irregular(path: string, what: string): ImageError {
  return new ImageError('ERR_CLOISTER_IMAGE', `${path} is ${what}`, { step: 'open', path });
}

/** One that the caller has named. */
export async function openLocal(path: string): Promise<{ stream: Readable; size: number }> {
  const { file, size } = await openRegular(path, true);
  return { stream: file.createReadStream({ highWaterMark: 2 ** 18 }), size };
}

export async function readRegular(path: string, most: number): Promise<Buffer> {
  const { file, size } = await openRegular(path);
  try {
    if (size > most) throw new ImageError('ERR_CLOISTER_IMAGE', `${path} is bigger than ${most} bytes`, { step: 'read the image', path });
    return await file.readFile();
  } finally {
    await file.close();
  }
}
