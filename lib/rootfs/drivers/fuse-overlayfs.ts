import { accessSync, constants } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { IsolationError } from '../../errors.js';
import type { PlanBuilder } from '../../plan/builder.js';
import * as k from '../../plan/constants.js';
import { cwd, type Slot } from '../../plan/steps.js';
import { cloneMount, newFilesystem } from '../filesystem.js';
import { takeNumber } from '../layer-names.js';
import type { Stage } from '../stage.js';
import type { Driver, Union } from './driver.js';

// fuse-overlayfs(1): a program that answers for the mount. We make the mount, where it belongs; the program gets the device by its
// number, and never sees the mount point. fuse-server.ts runs it.

export const fuseOverlayfs: Driver = {
  name: 'fuse-overlayfs',
  layersAreMounts: true,
  host: 'one layer',
  mapsOwners: true,
  marksByName: true,
  // It has "redirect_dir=off" alone: rename(2) of a directory that a lower layer has is EXDEV.
  redirects: false,
  refusal: async () => refusal(),
  mount,
};

/** A program to start, when the plan has run: its slots hold what it needs. */
export interface ServerOrder {
  readonly mount: Slot;
  readonly device: Slot;
  /** Mounts, uppermost first. */
  readonly lowers: readonly Slot[];
  readonly writable: { readonly space: Slot; readonly upper: string; readonly work: string } | undefined;
  readonly volatile: boolean;
}

export const device = '/dev/fuse';

export function program(): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/bin', '/usr/local/bin', '/usr/sbin'];
  return folders
    .filter(isAbsolute)
    .map((folder) => join(folder, 'fuse-overlayfs'))
    .find((path) => isAccessible(path, constants.X_OK) === undefined);
}

function refusal(): IsolationError | undefined {
  const step = "use the driver 'fuse-overlayfs'";
  if (program() === undefined) {
    return new IsolationError('ERR_CLOISTER_ROOTFS', `ENOENT: ${step}: there is no program fuse-overlayfs`, {
      errno: -k.ENOENT,
      step,
      hint: 'Install it (Debian: apt-get install fuse-overlayfs), or put its folder into PATH.',
      evidence: [`PATH is ${process.env['PATH'] ?? 'not set'}`],
    });
  }
  const why = isAccessible(device, constants.R_OK | constants.W_OK);
  if (why === undefined) return undefined;
  return IsolationError.ofErrno('ERR_CLOISTER_ROOTFS', why.errno ?? -k.EACCES, {
    step,
    path: device,
    syscall: 'access',
    what: why.code === 'ENOENT' ? 'this kernel has no FUSE, or it is not shown here' : 'this user may not open the device',
    hint:
      why.code === 'ENOENT'
        ? 'As root: modprobe fuse; in a container: --device /dev/fuse.'
        : 'As root: chmod 666 /dev/fuse, which is how most distributions have it.',
  });
}

function isAccessible(path: string, mode: number): NodeJS.ErrnoException | undefined {
  try {
    accessSync(path, mode);
    return undefined;
  } catch (error) {
    return error as NodeJS.ErrnoException;
  }
}

function mount(plan: PlanBuilder, stage: Stage, { lowers, writable, volatile }: Union): Slot {
  // fuse_fill_super() wants the device to have been opened in the user namespace that mounts; its number is a mount option.
  const opened = plan.open('fuse device', 'openat', [cwd, device, k.O_RDWR | k.O_CLOEXEC, 0]);
  const number = takeNumber(plan, 'fuse device by its number');
  plan.add('dup3', [opened, plan.given(number), k.O_CLOEXEC]);
  plan.add('close', [opened]);
  const options = {
    source: 'fuse-overlayfs',
    subtype: 'fuse-overlayfs',
    fd: String(plan.given(number)),
    rootmode: '40000',
    user_id: '0',
    group_id: '0',
    // The kernel decides who may do what, by owners and modes; and not only for the program's own user.
    default_permissions: true,
    allow_other: true,
  } as const;
  const made = newFilesystem(plan, 'fuse', options, k.MOUNT_ATTR_NODEV);
  stage.servers.push({ mount: made, device: number, lowers, writable: writable && inSpace(plan, writable.place), volatile });
  return made;
}

/** Upper and work directory by one mount: rename(2) between two of the same file system is EXDEV. */
function inSpace(plan: PlanBuilder, { from, path, upper, work }: NonNullable<Union['writable']>['place']): NonNullable<ServerOrder['writable']> {
  // read_dirs() takes it for the next directory, and there is no way to escape it.
  if (upper.includes(':')) {
    throw new IsolationError('ERR_CLOISTER_ROOTFS', `fuse-overlayfs cannot have a writable layer with ':' in its name`, {
      step: 'use the writable layer',
      path: join(path, upper),
      hint: "Rename the directory, or use driver 'overlay'.",
    });
  }
  return { space: cloneMount(plan, from, path), upper, work };
}
