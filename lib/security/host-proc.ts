import { closeSync, constants, openSync } from 'node:fs';
import { checked, native } from '../native.js';

let fd: number | undefined;

/** /proc as it is for this process, opened once: names in it mean the host's, whatever is mounted on them later. Above the numbers that programs have. */
export function hostProc(): number {
  if (fd !== undefined) return fd;
  // O_PATH, which Node has no name for.
  const low = openSync('/proc', 0x200000 | constants.O_DIRECTORY);
  fd = checked(native().duplicate(low, 64), 'fcntl', 'open /proc');
  closeSync(low);
  return fd;
}
