import { IsolationError } from '../errors.js';
import { caller } from '../host/caller.js';
import { ownUserNamespace } from '../namespace/create.js';
import type { UserNamespace } from '../namespace/kinds.js';
import { Namespace } from '../namespace/namespace.js';
import type { IdMap } from '../namespace/types.js';
import type { OverlayRootfs } from '../rootfs/overlay-rootfs.js';
import { type Ids, idsFor, idsOfNamespace, outside } from '../security/id-map.js';
import type { UserSetting } from './privilege-settings.js';
import type { Settings } from './settings.js';

// The ids of one spawn, and whether its user is among them.

/** Of a user namespace that is entered: whoever is privileged shows it its files with owners that it knows. */
export async function joinedIds({ namespaces: { user } }: Settings): Promise<Ids | undefined> {
  if (!(user instanceof Namespace) || !caller().privileged || user.id === ownUserNamespace()) return undefined;
  return idsOfNamespace(user as unknown as UserNamespace);
}

/** Files of a borrowed root are owned by its ids: so those are the spawn's, too. */
export async function chooseIds(settings: Settings, roots: readonly OverlayRootfs[], named: UserSetting | undefined): Promise<Ids> {
  const decided = (): Ids | undefined => roots.find((root) => root.ids)?.ids;
  const inside = named ?? (typeof settings.user === 'string' ? { uid: 0, gid: 0 } : settings.user);
  if (settings.idMap !== 'auto') return idsFor(settings.idMap, caller(), roots.length > 0 ? { uid: 0, gid: 0 } : inside);
  const before = decided();
  if (before) return before.retain();
  const own = await idsFor('auto', caller(), roots.length > 0 ? { uid: 0, gid: 0 } : inside);
  // Another spawn may have decided meanwhile.
  const after = decided();
  if (!after) {
    // At once, and not when the root is used: a third may be about to.
    for (const root of roots) root.propose(own);
    return own;
  }
  own.release();
  return after.retain();
}

/** `named`: by a name, which has further groups. */
export function checkUser(user: UserSetting, map: IdMap, named: boolean): void {
  const missing =
    outside(map.uids, user.uid) === undefined ? `uid ${user.uid}` : [user.gid, ...user.groups].find((gid) => outside(map.gids, gid) === undefined);
  if (missing === undefined) return;
  const isSupplementary = typeof missing === 'number' && missing !== user.gid;
  throw new IsolationError('ERR_CLOISTER_USER', `${typeof missing === 'string' ? missing : `gid ${missing}`} is not mapped, so nobody can have it inside`, {
    step: 'choose the user',
    hint:
      (map.uids.length === 1 && map.uids[0]?.count === 1
        ? `Only ${map.uids[0].inside} is mapped: an ordinary user has no other ids, unless /etc/subuid and /etc/subgid grant some (and newuidmap is installed).`
        : 'Choose an id of the map, or another idMap.') + (named && isSupplementary ? " Without its further groups the user is 'name:group'." : ''),
  });
}
