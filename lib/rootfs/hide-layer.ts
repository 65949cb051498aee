import { statSync } from 'node:fs';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import type { Slot } from '../plan/steps.js';
import { opaqueMarker } from '../tree/whiteouts.js';
import { type HostLayout, isBelow, isWorkplace } from './host-layout.js';
import { mountAbilities } from './mount-abilities.js';

// A layer that lies between the host's tree and the writable layer, with an opaque directory where one is to be empty and a
// whiteout where a file is not to be. In the writable layer they would look like changes of the program.

export function hiddenIn(layout: HostLayout, directory: string): HostLayout['hidden'] {
  return layout.hidden.filter(({ path }) => path !== directory && isBelow(path, directory));
}

export function hideLayer(
  plan: PlanBuilder,
  base: Slot,
  name: string,
  directory: string,
  layout: HostLayout,
  userxattr: boolean,
  owner?: { readonly uid: number; readonly gid: number },
  /** Opaque directories are told by a name in them, which fuse-overlayfs takes as well and every file system has. */
  byName = false,
): void {
  const made = new Set<string>();
  const makeDirectory = (path: string, mode: number): void => {
    // There already where a directory of an earlier root is used again.
    plan.add('mkdirat', [base, path, mode], { tolerate: [k.EEXIST] });
    if (owner) plan.add('fchownat', [base, path, owner.uid, owner.gid, 0]);
  };
  plan.label('make the layer that hides', directory);
  makeDirectory(name, modeOf(directory));
  for (const hidden of hiddenIn(layout, directory)) {
    const { path, mode } = hidden;
    // Without the attribute a directory cannot be made empty, only be taken away.
    const isGone = hidden.kind === 'file' || (userxattr && !byName && !mountAbilities().tmpfsUserXattrs && !isWorkplace(hidden));
    const parts = path.slice(directory === '/' ? 1 : directory.length + 1).split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const above = parts.slice(0, depth).join('/');
      if (made.has(above)) continue;
      made.add(above);
      makeDirectory(`${name}/${above}`, modeOf(`${directory === '/' ? '' : directory}/${above}`));
    }
    const inLayer = `${name}/${parts.join('/')}`;
    if (isGone) {
      // A whiteout is a character device 0:0, which everybody may make (may_mknod in fs/namei.c, since 5.8).
      plan.add('mknodat', [base, inLayer, k.S_IFCHR, 0], { tolerate: [k.EEXIST] });
      continue;
    }
    made.add(parts.join('/'));
    makeDirectory(inLayer, mode);
    if (byName) {
      plan.add('mknodat', [base, `${inLayer}/${opaqueMarker}`, k.S_IFREG | 0o600, 0], { tolerate: [k.EEXIST] });
      continue;
    }
    const opened = plan.open(path, 'openat', [base, inLayer, k.O_RDONLY | k.O_DIRECTORY | k.O_CLOEXEC, 0]);
    plan.add('fsetxattr', [opened, userxattr ? 'user.overlay.opaque' : 'trusted.overlay.opaque', Buffer.from('y'), 0]);
    plan.add('close', [opened]);
  }
}

function modeOf(path: string): number {
  return (statSync(path, { throwIfNoEntry: false })?.mode ?? 0o755) & 0o7777;
}
