import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { mountAttr } from '../plan/structs.js';
import { fillDev } from './devices.js';
import { newFilesystem } from './filesystem.js';
import { hiddenIn, hideLayer } from './hide-layer.js';
import type { HostLayout } from './host-layout.js';

/**
 * What every root of a privileged caller needs alike, made once and ahead of time: one read-only tmpfs with `dev` (the
 * devices), `blank` (an empty directory, for masks) and `hide/N` (a layer for the layout's mount N). A spawn copies mounts of it.
 */
export interface Kit {
  /** A detached mount. Borrowed. */
  readonly fd: number;
}

export async function makeKit(layout: HostLayout): Promise<Kit> {
  const plan = new PlanBuilder().in('parent');
  plan.label('prepare what all roots share', 'tmpfs');
  const base = newFilesystem(plan, 'tmpfs', { mode: '0755' }, 0);
  plan.add('mkdirat', [base, 'dev', 0o755]);
  fillDev(plan, base, 'dev/', 'mknod');
  plan.add('mkdirat', [base, 'blank', 0o555]);
  plan.add('mkdirat', [base, 'hide', 0o755]);
  for (const [index, { path }] of layout.mounts.entries()) {
    if (hiddenIn(layout, path).length > 0) hideLayer(plan, base, `hide/${index}`, path, layout, false);
  }
  plan.label('prepare what all roots share', 'tmpfs');
  plan.add('mount_setattr', [base, '', k.AT_EMPTY_PATH, mountAttr({ set: k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC })]);
  // The superblock too, not only this mount: a sandbox that was given CAP_SYS_ADMIN could make its copy of the mount writable.
  const context = plan.open('reconfiguration', 'fspick', [base, '', k.FSPICK_CLOEXEC | k.FSPICK_EMPTY_PATH]);
  plan.add('fsconfig', [context, k.FSCONFIG_SET_FLAG, 'ro', null, 0]);
  plan.add('fsconfig', [context, k.FSCONFIG_CMD_RECONFIGURE, null, null, 0]);
  plan.keep(base);
  const fdOf = await runPlan(plan);
  return { fd: fdOf(base) };
}

export function discardKit(kit: Kit): void {
  native().close(kit.fd);
}
