import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd } from '../plan/steps.js';
import { removeTree } from '../tree/tree.js';
import { makeDiskUpper } from './disk-upper.js';
import { newFilesystem } from './filesystem.js';
import { FrozenLayer } from './frozen-layer.js';
import type { Made, RootSettings } from './make-root.js';
import { mountAbilities } from './mount-abilities.js';
import { enterOwner } from './ordinary-owner.js';
import { copyLayer, emptyDirectory } from './writable-layer.js';

/**
 * A copy of what a root's writable layer changes, as a layer for other roots. Made like a diff that is applied: so it holds nothing that is
 * not a change, and the root may go on being used meanwhile.
 */
export async function freeze(made: Made, below: number, settings: Pick<RootSettings, 'ownUpper' | 'upper' | 'size'>): Promise<FrozenLayer> {
  // Where a layer has to be attached, a tmpfs that is kept would have to be in some mount namespace: a directory has a place.
  const onDisk = settings.ownUpper || !mountAbilities().detached;
  const disk = onDisk ? makeDiskUpper() : undefined;
  let fd = -1;
  try {
    fd = await openNew(made, disk, settings.size);
    await copyLayer(made, below, fd);
  } catch (error) {
    if (fd >= 0) native().close(fd);
    if (disk !== undefined) await removeTree(disk);
    throw error;
  }
  return new FrozenLayer(fd, disk && join(disk, 'layer'), async (owner) => {
    if (disk === undefined) return;
    await emptyDirectory(disk, owner);
    await removeTree(disk);
  });
}

async function openNew(made: Made, disk: string | undefined, size: number): Promise<number> {
  const plan = new PlanBuilder();
  if (made.owner) {
    enterOwner(plan, made.owner);
    plan.label('become root inside').add('setresgid', [0, 0, 0]);
    plan.add('setresuid', [0, 0, 0]);
  } else plan.in('parent');
  plan.label('make a layer of what was written', disk ?? 'tmpfs');
  if (disk !== undefined) mkdirSync(join(disk, 'layer'));
  const slot =
    disk === undefined
      ? newFilesystem(plan, 'tmpfs', { size: String(size), mode: '0755' }, k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOSUID)
      : plan.open('layer', 'openat', [cwd, join(disk, 'layer'), k.O_PATH | k.O_DIRECTORY | k.O_CLOEXEC, 0]);
  plan.keep(slot);
  return (await runPlan(plan))(slot);
}
