import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd, type Slot } from '../plan/steps.js';
import { awaitIds } from '../security/await-ids.js';
import { type Ids, idTexts, mapText } from '../security/id-map.js';
import { writeOwnIdMap } from '../security/own-id-map.js';
import { makePrivate } from './root-mount.js';

// An ordinary user can mount only in a user and a mount namespace of its own. All roots with the same ids share one pair, as a
// process that uses several of them can be in one user namespace only. It exists for as long as one of them does.

export interface Owner {
  readonly user: number;
  readonly mount: number;
}

const owners = new Map<string, { owner: Promise<Owner>; users: number }>();

export async function shareOwner(ids: Ids): Promise<{ owner: Owner; release: () => void }> {
  const key = mapText(ids.map.uids) + mapText(ids.map.gids);
  const entry = owners.get(key) ?? { owner: makeOwner(ids), users: 0 };
  owners.set(key, entry);
  entry.users++;
  let released = false;
  const release = (): void => {
    if (released) return;
    released = true;
    if (--entry.users > 0) return;
    owners.delete(key);
    void entry.owner.then(
      ({ user, mount }) => [user, mount].map((fd) => native().close(fd)),
      () => {},
    );
  };
  try {
    return { owner: await entry.owner, release };
  } catch (error) {
    release();
    throw error;
  }
}

async function makeOwner(ids: Ids): Promise<Owner> {
  const plan = new PlanBuilder().in('join');
  plan.joinFlags = k.CLONE_NEWUSER | k.CLONE_NEWNS;
  if (ids.writer === 'child') writeOwnIdMap(plan, ids.map);
  else {
    plan.idMap = idTexts(ids);
    awaitIds(plan);
  }
  // A slave: what the host unmounts must go here too, or it would stay busy for as long as a root lives.
  makePrivate(plan, k.MS_SLAVE);
  plan.label('keep the namespaces');
  const keep = (name: string): Slot => {
    const slot = plan.open(name, 'openat', [cwd, `/proc/self/ns/${name}`, k.O_RDONLY | k.O_CLOEXEC, 0]);
    plan.keep(slot);
    return slot;
  };
  const [user, mount] = [keep('user'), keep('mnt')];
  const fdOf = await runPlan(plan);
  return { user: fdOf(user), mount: fdOf(mount) };
}

/** Steps of a joiner that enters them, as root of theirs. */
export function enterOwner(plan: PlanBuilder, { user, mount }: Owner): void {
  plan.in('join').label('enter the namespaces of the root');
  plan.joinFlags = 0;
  plan.add('setns', [plan.slot('user namespace', native().duplicate(user, 64)), k.CLONE_NEWUSER]);
  plan.add('setns', [plan.slot('mount namespace', native().duplicate(mount, 64)), k.CLONE_NEWNS]);
}
