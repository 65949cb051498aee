import { native } from '../native.js';
import * as k from '../plan/constants.js';
import { deepest } from './depth.js';
import * as files from './files.js';
import { join } from './names.js';

/** Whatever has this name, with all that is in it. */
export function removeEntry(directory: number, name: Buffer, path: Buffer): void {
  const result = native().files.unlink(directory, name, 0);
  if (result === 0 || result === -k.ENOENT) return;
  // unlink(2): EISDIR on Linux, EPERM by POSIX.
  if (result !== -k.EISDIR && result !== -k.EPERM) throw files.refused(result, 'unlinkat', path);
  const fd = files.open(directory, name, k.O_RDONLY | k.O_DIRECTORY, path);
  try {
    emptyDirectory(fd, path);
  } finally {
    files.close(fd);
  }
  files.must(native().files.unlink(directory, name, k.AT_REMOVEDIR), 'unlinkat', path);
}

/** All that is in a directory. Directories that are too deep are moved up first. */
export function emptyDirectory(top: number, path: Buffer): void {
  let moved = 0;
  const empty = (fd: number, here: Buffer, depth: number): void => {
    for (const name of files.namesIn(fd, here)) {
      const entry = join(here, name);
      const result = native().files.unlink(fd, name, 0);
      if (result === 0 || result === -k.ENOENT) continue;
      if (result !== -k.EISDIR && result !== -k.EPERM) throw files.refused(result, 'unlinkat', entry);
      if (depth === deepest) {
        // Somebody may have taken such a name on purpose.
        let placed = -k.EEXIST;
        while (placed === -k.EEXIST) placed = native().files.rename(fd, name, top, Buffer.from(`.cloister-deep-${moved++}`), k.RENAME_NOREPLACE);
        files.must(placed, 'renameat2', entry);
        continue;
      }
      const below = openToEmpty(fd, name, entry);
      try {
        empty(below, entry, depth + 1);
      } finally {
        files.close(below);
      }
      files.must(native().files.unlink(fd, name, k.AT_REMOVEDIR), 'unlinkat', entry);
    }
  };
  for (let before = -1; before !== moved; ) {
    before = moved;
    empty(top, path, 0);
  }
}

/** Its owner may lack permissions that it can give itself. */
function openToEmpty(fd: number, name: Buffer, path: Buffer): number {
  const object = files.open(fd, name, k.O_PATH | k.O_DIRECTORY, path);
  try {
    const { mode } = files.statusOfOpen(object, path);
    if ((mode & 0o700) !== 0o700) void native().files.setMode(object, 0o700);
  } finally {
    files.close(object);
  }
  return files.open(fd, name, k.O_RDONLY | k.O_DIRECTORY, path);
}
