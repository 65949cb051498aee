import { resolve } from 'node:path';
import { optionError } from '../errors.js';
import { beginBoot } from './recent.js';
import { refusals } from './refusals.js';
import { StoreDirectory } from './store-directory.js';
import { sweep } from './workspace.js';

/** The directory is made if need be. What killed processes left in it is taken away, and what a crash of the host may have damaged. */
export async function openStore(directory: string): Promise<StoreDirectory> {
  if (typeof directory !== 'string' || directory === '' || directory.includes('\0')) throw optionError('directory', 'the path of a directory', directory);
  const path = resolve(directory);
  const open = async (): Promise<StoreDirectory> => {
    const store = await StoreDirectory.open(path);
    await sweep(store);
    await beginBoot(store);
    return store;
  };
  return await refusals(path, 'open the store', open, true);
}
