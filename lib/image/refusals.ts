import { ImageError, IsolationError } from '../errors.js';

/** Calls that write; what is read may be the caller's own. */
const writing = ['write', 'writev', 'fsync', 'ftruncate', 'copyfile'];

/** What the host refuses about the files of a store is told as such; what else fails, the caller's own streams for one, as it is. `onlyOwn`: there is nothing else. */
export async function refusals<T>(path: string, step: string, work: () => Promise<T>, onlyOwn = false): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof IsolationError) throw cause;
    const { errno, syscall, path: file } = cause as NodeJS.ErrnoException;
    const isStores = file === undefined ? writing.includes(syscall ?? '') : file === path || file.startsWith(`${path}/`);
    if (errno === undefined || !(isStores || onlyOwn)) throw cause;
    throw ImageError.ofErrno('ERR_CLOISTER_STORE', errno, {
      step,
      syscall,
      path: file ?? path,
      cause,
      hint: 'The directory must belong to this user, on a file system that can be written and has room.',
    });
  }
}
