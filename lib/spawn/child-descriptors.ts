import { fchmodSync } from 'node:fs';
import { checked, native } from '../native.js';
import { type Ids, outside } from '../security/id-map.js';
import type { UserSetting } from './privilege-settings.js';
import type { Settings } from './settings.js';
import type { Streams } from './streams.js';

// Descriptors that a child is given: whose they are, and which numbers they have.

/** So that the program may open its own streams by name (/dev/stdout), which is checked like opening a file. */
export function ownPipes(settings: Settings, streams: Pick<Streams, 'child' | 'terminal'>, ids: Ids | undefined, user: UserSetting): void {
  if (streams.terminal) return;
  for (const [index, fd] of streams.child.entries()) if (settings.stdio[index] === 'pipe') own(fd, ids, user);
}

export function own(fd: number, ids: Ids | undefined, user: { uid: number; gid: number } = { uid: 0, gid: 0 }): void {
  if (ids?.writer !== 'parent') return;
  const owned = native().setOwner(fd, outside(ids.map.uids, user.uid) ?? 0, outside(ids.map.gids, user.gid) ?? 0);
  // Without CAP_CHOWN. Who may open it is limited by whose /proc/PID/fd one may look into.
  if (owned < 0) fchmodSync(fd, 0o666);
}

/** A pair of sockets: ours, and the child's, above the descriptors that the program will have. */
export function openChannel(least: number): [ours: number, theirs: number] {
  const [ours, low] = checked(native().socketPair(), 'socketpair', 'ask about system calls') as [number, number];
  const theirs = checked(native().duplicate(low, least), 'fcntl', 'ask about system calls');
  native().close(low);
  return [ours, theirs];
}
