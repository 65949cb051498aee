import { closeSync, fstatSync, openSync, readSync, realpathSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { isAbsolute, join, normalize } from 'node:path';
import { ImageError } from '../errors.js';
import * as k from '../plan/constants.js';
import { harmless } from '../text.js';

// Names are looked up, and documents read, in this thread: to wake another one for it takes longer than that.

/** `following`: the caller has named it. A regular file, and never a fifo that nobody writes to or a device, which may act when it is opened: a layout's names are a stranger's. */
export async function openRegular(path: string, following = false): Promise<{ file: FileHandle; size: number }> {
  const { object, size } = openObject(path, following);
  try {
    return { file: await open(reopened(object), reading), size };
  } catch (cause) {
    throw unopened(path, cause);
  } finally {
    closeSync(object);
  }
}

export function readRegular(path: string, most: number): Buffer {
  const { object, size } = openObject(path, false);
  let file = -1;
  try {
    if (size > most) throw new ImageError('ERR_CLOISTER_IMAGE', `${path} is bigger than ${most} bytes`, { step: 'read the image', path });
    file = openSync(reopened(object), reading);
    const bytes = Buffer.alloc(size);
    let length = 0;
    for (let read = -1; read !== 0 && length < size; length += read) read = readSync(file, bytes, length, size - length, length);
    return bytes.subarray(0, length);
  } catch (cause) {
    throw unopened(path, cause);
  } finally {
    closeSync(object);
    if (file >= 0) closeSync(file);
  }
}

/** Not waiting for who has a lease on it: that is up to 45 seconds, in this thread (fcntl(2), F_SETLEASE). */
const reading = k.O_RDONLY | k.O_NONBLOCK;

const reopened = (object: number): string => `/proc/self/fd/${object}`;

/** What has that name, by O_PATH: to open that does nothing to it. open(2). */
function openObject(path: string, following: boolean): { object: number; size: number } {
  let object = -1;
  try {
    object = openSync(path, k.O_PATH | (following ? 0 : k.O_NOFOLLOW));
    const status = fstatSync(object);
    if (status.isSymbolicLink()) throw irregular(path, 'a symbolic link');
    if (!status.isFile()) throw irregular(path, 'no regular file');
    return { object, size: status.size };
  } catch (cause) {
    if (object >= 0) closeSync(object);
    throw unopened(path, cause);
  }
}

function unopened(path: string, cause: unknown): ImageError {
  if (cause instanceof ImageError) return cause;
  const { errno, syscall, code } = cause as NodeJS.ErrnoException;
  return ImageError.ofErrno(isAbsence(code) ? 'ERR_CLOISTER_NOT_FOUND' : 'ERR_CLOISTER_IMAGE', errno ?? -5, {
    step: 'open',
    syscall,
    path,
    cause,
  }) as ImageError;
}

const isAbsence = (code: string | undefined): boolean => code === 'ENOENT' || code === 'ENOTDIR';

function irregular(path: string, what: string): ImageError {
  return new ImageError('ERR_CLOISTER_IMAGE', `${path} is ${what}`, { step: 'open', path });
}

/** Where a name in an image's directory leads. Older Dockers write a layer that is there already as a symlink to it; it may lead to files of the image only. */
export function inside(directory: string, name: string): string {
  const astray = (): ImageError =>
    new ImageError('ERR_CLOISTER_IMAGE', `${harmless(JSON.stringify(name))} leads out of the image`, { step: 'read the image', path: harmless(name) });
  if (isAbsolute(name) || /^\.\.(\/|$)/.test(normalize(name))) throw astray();
  let path: string;
  try {
    path = realpathSync.native(join(directory, name));
  } catch (error) {
    const cause = error as NodeJS.ErrnoException;
    throw ImageError.ofErrno(isAbsence(cause.code) ? 'ERR_CLOISTER_NOT_FOUND' : 'ERR_CLOISTER_IMAGE', cause.errno ?? -5, {
      step: 'open',
      syscall: 'realpath',
      path: harmless(name),
      cause,
    });
  }
  if (!path.startsWith(`${realpathSync.native(directory)}/`)) throw astray();
  return path;
}
