import { IsolationError } from '../../errors.js';
import type { PlanBuilder } from '../../plan/builder.js';
import * as k from '../../plan/constants.js';
import type { Slot } from '../../plan/steps.js';
import { newOverlay, type Parameter } from '../layer-names.js';
import { mountAbilities, tryMounts } from '../mount-abilities.js';
import type { Stage } from '../stage.js';
import type { Driver, Union } from './driver.js';

// OverlayFS, Documentation/filesystems/overlayfs.rst.

export const overlay: Driver = {
  name: 'overlay',
  layersAreMounts: false,
  host: 'parts',
  mapsOwners: true,
  marksByName: false,
  redirects: true,
  async refusal() {
    await tryMounts();
    if (mountAbilities().overlay) return undefined;
    return IsolationError.ofErrno('ERR_CLOISTER_ROOTFS', -k.ENODEV, {
      step: "use the driver 'overlay'",
      syscall: 'fsopen',
      what: 'this kernel has no overlayfs',
      hint: 'Load its module (modprobe overlay, as root), use a kernel with CONFIG_OVERLAY_FS, or install fuse-overlayfs.',
    });
  },
  mount,
};

function mount(plan: PlanBuilder, stage: Stage, { lowers, byName, writable, userxattr, volatile }: Union): Slot {
  const parameters: Parameter[] = [...(writable && volatile ? [['volatile', true] as const] : []), ...features(userxattr, writable)];
  const directories: readonly (readonly [string, Slot])[] = writable
    ? [
        ['upperdir', writable.upper],
        ['workdir', writable.work],
      ]
    : [];
  if (!mountAbilities().detached) return stage.names.overlay(lowers, directories, parameters);
  return newOverlay(plan, parameters, (context) => {
    // Mount options by descriptor: no path is looked up again, and none has to be escaped. Since 6.13 (ovl_parse_layer).
    for (const lower of lowers) plan.add('fsconfig_fd', [context, k.FSCONFIG_SET_FD, 'lowerdir+', null, lower]);
    if (byName) plan.add('overlay_lowers', [context, byName.directory, byName.names], { path: byName.path });
    for (const [key, directory] of directories) plan.add('fsconfig_fd', [context, k.FSCONFIG_SET_FD, key, null, directory]);
  });
}

/** What the kernel's build or module parameters would decide otherwise. */
function features(userxattr: boolean, writable: Union['writable']): Parameter[] {
  // index=on wants file handles of every layer, and refuses an upper whose layers have been replaced by equal ones (ovl_verify_origin).
  // xino=on makes inode numbers of more than 32 bits, which are EOVERFLOW for programs without large files.
  const always: Parameter[] = [
    ['index', 'off'],
    ['xino', 'off'],
  ];
  // ovl_fs_params_verify: with userxattr there is neither redirect_dir nor metacopy.
  if (userxattr) return [['userxattr', true], ...always];
  return [
    // Else rename(2) of a directory that the lower layer has is EXDEV, which many programs take for an error.
    ['redirect_dir', 'on'],
    // A chown or chmod need not copy a file's contents. But whoever reads a directory of the caller's own expects them there.
    ['metacopy', writable && !writable.isKept ? 'on' : 'off'],
    ...always,
  ];
}
