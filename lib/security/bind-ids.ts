import { IsolationError } from '../errors.js';
import type { Caller } from '../host/caller.js';
import type { IdMap, IdRange } from '../namespace/types.js';
import { outside, userNamespaceWith } from './id-map.js';

/**
 * A user namespace for a mount whose files are owned, on the disk, by `outside` ids of `map`, and inside the sandbox by its
 * `inside` ones: mount_setattr(2), "ID-mapped mounts". The descriptor is the caller's.
 */
export async function userNamespaceOfBind(map: IdMap, sandbox: IdMap, caller: Caller, source: string): Promise<number> {
  if (!caller.mayMapRanges) {
    throw refused(source, 'only root can map the owners of a mount', 'Leave its idMap out: the files then belong to whom they belong to, or to nobody inside.');
  }
  return userNamespaceWith({ uids: onDisk(map.uids, sandbox.uids, source), gids: onDisk(map.gids, sandbox.gids, source) });
}

function onDisk(ranges: readonly IdRange[], sandbox: readonly IdRange[], source: string): IdRange[] {
  return ranges.map(({ inside, outside: disk, count }) => {
    const [first, last] = [outside(sandbox, inside), outside(sandbox, inside + count - 1)];
    if (first === undefined || last !== first + count - 1) {
      const ids = count === 1 ? `id ${inside} is` : `ids ${inside} to ${inside + count - 1} are`;
      throw refused(source, `${ids} not mapped in the sandbox, so no file can be theirs`, '`inside` are ids of the sandbox, `outside` those on the disk.');
    }
    return { inside: disk, outside: first, count };
  });
}

function refused(source: string, what: string, hint: string): IsolationError {
  return new IsolationError('ERR_CLOISTER_ID_MAP', `map the owners of the bind ${source}: ${what}`, { step: 'map the owners of a bind', path: source, hint });
}
