import { IsolationError } from '../../errors.js';
import { caller } from '../../host/caller.js';
import { PlanBuilder } from '../../plan/builder.js';
import * as k from '../../plan/constants.js';
import { runPlan } from '../../plan/run.js';
import type { Slot } from '../../plan/steps.js';
import { createFilesystem } from '../filesystem.js';
import type { Stage } from '../stage.js';
import type { Driver, Union } from './driver.js';

// AUFS, aufs(5). Its branches are named by what descriptors lead to: such a name is short, and has no ':', ',' or '='.

export const aufs: Driver = {
  name: 'aufs',
  layersAreMounts: false,
  host: undefined,
  // Owners are those of the branch's inode (au_cpup_attr_all), whatever the mount says.
  mapsOwners: false,
  marksByName: true,
  // "dirren" is off by default: rename(2) of a directory that is in a lower branch is EXDEV.
  redirects: false,
  refusal,
  mount,
};

async function refusal(): Promise<IsolationError | undefined> {
  const where = { step: "use the driver 'aufs'", syscall: 'fsopen' };
  if (!caller().privileged) {
    return IsolationError.ofErrno('ERR_CLOISTER_ROOTFS', -k.EPERM, {
      ...where,
      what: 'aufs can only be mounted by root of the host: not in a user namespace (aufs_fs_type has no FS_USERNS_MOUNT)',
      hint: "Use driver 'overlay' or 'fuse-overlayfs', or run as root.",
    });
  }
  const plan = new PlanBuilder().in('parent').label('look for aufs');
  plan.release(plan.open('aufs context', 'fsopen', ['aufs', k.FSOPEN_CLOEXEC]));
  try {
    await runPlan(plan);
    return undefined;
  } catch (error) {
    if (!(error instanceof IsolationError) || error.errno === undefined) throw error;
    return IsolationError.ofErrno('ERR_CLOISTER_ROOTFS', error.errno, {
      ...where,
      ...(error.errno === -k.ENODEV
        ? {
            what: 'this kernel has no aufs: it is not part of Linux, but a patch to it',
            hint: "Use driver 'overlay', or a kernel that was built with aufs (its module is loaded when it is first used).",
            evidence: ['fsopen(2) of aufs is ENODEV, so there is no module of that name either'],
          }
        : {}),
    });
  }
}

/** "br:BRANCH[:BRANCH ...]", uppermost first: one parameter for each, as fsconfig(2) takes 255 bytes; they add up (au_fsctx_parse_br). */
function mount(plan: PlanBuilder, stage: Stage, { lowers, writable, writableLowers }: Union): Slot {
  const context = plan.open('aufs context', 'fsopen', ['aufs', k.FSOPEN_CLOEXEC]);
  const set = (key: string, value: string): void => void plan.add('fsconfig', [context, k.FSCONFIG_SET_STRING, key, value, 0]);
  // Its table of inode numbers: by default a file that is found by the branch's path, or in /tmp if the branch's file system is none for it
  // (au_xino_def); it is unlinked at once.
  if (writable?.isPlaceless) set('xino', `${stage.names.path(writable.work)}/xino`);
  if (writable) set('br', branch(stage.names.path(writable.upper), true));
  for (const lower of lowers) set('br', branch(stage.names.path(lower), writable !== undefined && (writableLowers?.has(lower) ?? false)));
  return createFilesystem(plan, context, 'aufs', k.MOUNT_ATTR_NODEV);
}

/** aufs(5), "Branch Syntax". `wh`: a lower branch's whiteouts count. */
const branch = (path: string, writable: boolean): string => `${path}=${permission(writable).join('+')}`;

export const permission = (writable: boolean): string[] => (writable ? ['rw'] : ['ro', 'wh']);

export type BranchChange =
  | { readonly what: 'add'; readonly directory: Slot; readonly index: number; readonly writable: boolean }
  | { readonly what: 'del'; readonly directory: Slot }
  | { readonly what: 'mod'; readonly directory: Slot; readonly writable: boolean };

/** Steps that change a mounted one: aufs(5), "add:index:BRANCH", "del:dir", "mod:BRANCH", at remount. EBUSY: something of it is in use. */
export function changeBranch(plan: PlanBuilder, stage: Stage, mounted: Slot, change: BranchChange): void {
  const context = plan.open('reconfiguration', 'fspick', [mounted, '', k.FSPICK_CLOEXEC | k.FSPICK_EMPTY_PATH]);
  const path = stage.names.path(change.directory);
  const value = change.what === 'del' ? path : branch(path, change.writable);
  plan.add('fsconfig', [context, k.FSCONFIG_SET_STRING, change.what, change.what === 'add' ? `${change.index}:${value}` : value, 0]);
  plan.add('fsconfig', [context, k.FSCONFIG_CMD_RECONFIGURE, null, null, 0]);
  plan.release(context);
}
