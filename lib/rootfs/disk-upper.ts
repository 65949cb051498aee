import { lstatSync, mkdirSync, mkdtempSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deadOwner, ownerMark } from '../cgroup/owner-name.js';
import { IsolationError } from '../errors.js';
import { caller } from '../host/caller.js';
import { idsFor } from '../security/id-map.js';
import { removeTree } from '../tree/tree.js';
import { shareOwner } from './ordinary-owner.js';
import { emptyDirectory } from './writable-layer.js';

/** Where they are, and how their names begin. In a directory that anybody may write to, only a new one is ours: mkdtemp(3) makes it with mode 0700. */
const place = (): { directory: string; prefix: string } =>
  caller().privileged ? { directory: '/var/lib/cloister', prefix: 'upper-' } : { directory: tmpdir(), prefix: 'cloister-upper-' };

/** A directory for upper layers of our own. Its name tells whose it is. Throws ERR_CLOISTER_ROOTFS. */
export function makeDiskUpper(): string {
  const { directory, prefix } = place();
  try {
    if (caller().privileged) mkdirSync(directory, { recursive: true, mode: 0o700 });
    return mkdtempSync(join(directory, `${prefix}${ownerMark()}-`));
  } catch (error) {
    const { errno = 0, syscall } = error as NodeJS.ErrnoException;
    throw IsolationError.ofErrno('ERR_CLOISTER_ROOTFS', errno, {
      step: "make a directory for what is written with upper: 'disk'",
      path: directory,
      syscall,
      hint: caller().privileged ? undefined : 'It is made where TMPDIR says, or else in /tmp.',
      cause: error,
    });
  }
}

export interface RemovedUpper {
  readonly kind: 'upper';
  readonly name: string;
  readonly ownerPid: number;
}

/** Those of this user whose process was killed before it could remove them. */
export async function removeDeadUppers(): Promise<RemovedUpper[]> {
  const { directory, prefix } = place();
  const removed: RemovedUpper[] = [];
  for (const name of await readdir(directory).catch(() => [])) {
    const mark = name.startsWith(prefix) ? /^(.*)-[A-Za-z0-9]{6}$/.exec(name.slice(prefix.length))?.[1] : undefined;
    const ownerPid = mark === undefined ? undefined : deadOwner(mark);
    const path = join(directory, name);
    if (ownerPid === undefined || !isOwn(path)) continue;
    try {
      await removeOne(path);
      removed.push({ kind: 'upper', name, ownerPid });
    } catch {
      // Another process of ours may be at it: the next one will see.
    }
  }
  return removed;
}

/** Anybody may give a name of ours to something in a directory of all. */
function isOwn(path: string): boolean {
  const status = lstatSync(path, { throwIfNoEntry: false });
  return status?.isDirectory() === true && status.uid === process.geteuid?.();
}

async function removeOne(path: string): Promise<void> {
  if (!caller().privileged) {
    // What programs made there may belong to ids that only root of such a namespace can act for.
    const ids = await idsFor('auto', caller(), { uid: 0, gid: 0 });
    const { owner, release } = await shareOwner(ids);
    await emptyDirectory(path, owner).finally(() => [release(), ids.release()]);
  }
  await removeTree(path);
}
