import { type FileHandle, open, realpath } from 'node:fs/promises';
import { isAbsolute, join, normalize } from 'node:path';
import { ImageError } from '../errors.js';
import * as k from '../plan/constants.js';
import { harmless } from '../text.js';

/** `following`: the caller has named it. A regular file, and never a fifo that nobody writes to or a device, which may act when it is opened: a layout's names are a stranger's. */
export async function openRegular(path: string, following = false): Promise<{ file: FileHandle; size: number }> {
  try {
    const object = await open(path, k.O_PATH | (following ? 0 : k.O_NOFOLLOW));
    try {
      const status = await object.stat();
      if (status.isSymbolicLink()) throw irregular(path, 'a symbolic link');
      if (!status.isFile()) throw irregular(path, 'no regular file');
      return { file: await open(`/proc/self/fd/${object.fd}`), size: status.size };
    } finally {
      await object.close();
    }
  } catch (cause) {
    const { errno, syscall, code } = cause as NodeJS.ErrnoException;
    if (cause instanceof ImageError) throw cause;
    throw ImageError.ofErrno(isAbsence(code) ? 'ERR_CLOISTER_NOT_FOUND' : 'ERR_CLOISTER_IMAGE', errno ?? -5, { step: 'open', syscall, path, cause });
  }
}

const isAbsence = (code: string | undefined): boolean => code === 'ENOENT' || code === 'ENOTDIR';

function irregular(path: string, what: string): ImageError {
  return new ImageError('ERR_CLOISTER_IMAGE', `${path} is ${what}`, { step: 'open', path });
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

/** Where a name in an image's directory leads. Older Dockers write a layer that is there already as a symlink to it; it may lead to files of the image only. */
export async function inside(directory: string, name: string): Promise<string> {
  const astray = (): ImageError =>
    new ImageError('ERR_CLOISTER_IMAGE', `${harmless(JSON.stringify(name))} leads out of the image`, { step: 'read the image', path: harmless(name) });
  if (isAbsolute(name) || /^\.\.(\/|$)/.test(normalize(name))) throw astray();
  const path = await realpath(join(directory, name)).catch((cause: NodeJS.ErrnoException) => {
    throw ImageError.ofErrno(isAbsence(cause.code) ? 'ERR_CLOISTER_NOT_FOUND' : 'ERR_CLOISTER_IMAGE', cause.errno ?? -5, {
      step: 'open',
      syscall: 'realpath',
      path: harmless(name),
      cause,
    });
  });
  if (!path.startsWith(`${await realpath(directory)}/`)) throw astray();
  return path;
}
