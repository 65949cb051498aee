import { resolve } from 'node:path';
import { ImageError, IsolationError, optionError } from '../errors.js';
import { beginBoot } from './recent.js';
import { StoreDirectory } from './store-directory.js';
import { sweep } from './workspace.js';

/** The directory is made if need be. What killed processes left in it is taken away, and what a crash of the host may have damaged. */
export async function openStore(directory: string): Promise<StoreDirectory> {
  if (typeof directory !== 'string' || directory === '' || directory.includes('\0')) throw optionError('directory', 'the path of a directory', directory);
  const store = await refusals(directory, () => StoreDirectory.open(resolve(directory)));
  await sweep(store);
  await refusals(directory, () => beginBoot(store));
  return store;
}

async function refusals<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const { errno, syscall } = cause as NodeJS.ErrnoException;
    if (cause instanceof IsolationError || errno === undefined) throw cause;
    throw ImageError.ofErrno('ERR_CLOISTER_STORE', errno, {
      step: 'open the store',
      syscall,
      path,
      cause,
      hint: 'The directory must be this user’s, on a file system that can be written.',
    });
  }
}
