import { caller } from '../host/caller.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd, type Slot, type Step } from '../plan/steps.js';
import { idsFor } from '../security/id-map.js';
import { writeOwnIdMap } from '../security/own-id-map.js';
import { newFilesystem } from './filesystem.js';

/** What this kernel can do with mounts and overlays: tried once, as distributions bring changes to kernels with an older number. */
export interface MountAbilities {
  /** There is an overlayfs at all. */
  readonly overlay: boolean;
  /**
   * Mounts that are attached nowhere can be copied, be layers, and be mounted on. Before 6.15 the first is refused by
   * __do_loopback() and the second by clone_private_mount(), as check_mnt() wants them to be in the caller's mount namespace; the
   * third by do_move_mount(). Layers by descriptor (6.13, ovl_parse_layer) are part of it: a mount without a place has no name.
   */
  readonly detached: boolean;
  /** `lowerdir+`, since 6.7 (ovl_parse_param). Else all layers are one value. */
  readonly layersOneByOne: boolean;
  /** user.* attributes on tmpfs, since 6.6 (shmem_xattr_handlers): an ordinary user's overlay marks directories by them. */
  readonly tmpfsUserXattrs: boolean;
}

/** The newest kernels'. */
const all: MountAbilities = { overlay: true, detached: true, layersOneByOne: true, tmpfsUserXattrs: true };

let known: MountAbilities | undefined;
let trial: Promise<MountAbilities> | undefined;

/** To be awaited before `mountAbilities` is asked. */
export async function tryMounts(): Promise<void> {
  trial ??= attempt();
  try {
    known = await trial;
  } catch {
    // There are no namespaces to try in. What is asked for will fail, and tells why; nothing has been learned.
    trial = undefined;
    known ??= all;
  }
}

export function mountAbilities(): MountAbilities {
  if (!known) throw new Error('unreachable: nobody has tried what this kernel can do');
  return known;
}

async function attempt(): Promise<MountAbilities> {
  const plan = new PlanBuilder().in('parent');
  if (!caller().privileged) {
    const ids = await idsFor('self', caller(), { uid: 0, gid: 0 });
    plan.in('join');
    plan.joinFlags = k.CLONE_NEWUSER | k.CLONE_NEWNS;
    writeOwnIdMap(plan, ids.map);
  }
  plan.label('try what this kernel can do', 'tmpfs');
  const base = newFilesystem(plan, 'tmpfs', {}, 0);
  for (const name of ['lower', 'upper', 'work', 'place']) plan.add('mkdirat', [base, name, 0o755]);

  const [there, copied, layered, mountedOn, appended, attributed] = ['there', 'copied', 'layered', 'mounted on', 'appended', 'attributed'].map((name) => {
    const slot = plan.slot(name);
    plan.keep(slot);
    return slot;
  }) as [Slot, Slot, Slot, Slot, Slot, Slot];
  const mark = (slot: Slot): Step => plan.add('openat', [cwd, '/', k.O_PATH | k.O_CLOEXEC, 0], { out: slot });
  // fsconfig(2) of a descriptor is EOPNOTSUPP where a file system takes its parameters as text, and EBADF before 6.13 for one that was
  // opened with O_PATH.
  const refused = { tolerate: [k.EINVAL, k.EOPNOTSUPP, k.EBADF] };

  const copy = plan.add('open_tree', [base, '', k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_EMPTY_PATH], { out: copied, ...refused });
  plan.unless(copy, 'tolerated', () => {
    plan.unless(plan.add('move_mount', [copied, '', base, 'place', k.MOVE_MOUNT_F_EMPTY_PATH], refused), 'tolerated', () => mark(mountedOn));
  });

  const directories = ['upper', 'work', 'lower'].map((name) => plan.open(name, 'openat', [base, name, k.O_PATH | k.O_DIRECTORY | k.O_CLOEXEC, 0]));
  const context = plan.slot('overlay context');
  const setAll = (keys: readonly string[]): void => {
    const [key, ...others] = keys;
    if (key === undefined) {
      const create = plan.add('fsconfig', [context, k.FSCONFIG_CMD_CREATE, null, null, 0], refused);
      plan.unless(create, 'tolerated', () => mark(layered));
      return;
    }
    const set = plan.add('fsconfig_fd', [context, k.FSCONFIG_SET_FD, key, null, directories[2 - others.length] as Slot], refused);
    plan.unless(set, 'tolerated', () => setAll(others));
  };
  const open = plan.add('fsopen', ['overlay', k.FSOPEN_CLOEXEC], { out: context, tolerate: [k.ENODEV] });
  plan.unless(open, 'tolerated', () => {
    mark(there);
    setAll(['upperdir', 'workdir', 'lowerdir+']);
    tryAppending();
  });

  // A kernel that takes parameters as text (legacy_parse_param, overlayfs before 6.5) takes any name, and refuses it when it is too late.
  function tryAppending(): void {
    const second = plan.open('overlay context', 'fsopen', ['overlay', k.FSOPEN_CLOEXEC]);
    const nonsense = plan.add('fsconfig', [second, k.FSCONFIG_SET_STRING, 'cloister', '/', 0], refused);
    plan.unless(nonsense, 'done', () => {
      const append = plan.add('fsconfig', [second, k.FSCONFIG_SET_STRING, 'lowerdir+', '/', 0], refused);
      plan.unless(append, 'tolerated', () => mark(appended));
    });
  }

  const directory = plan.open('directory', 'openat', [base, 'upper', k.O_RDONLY | k.O_DIRECTORY | k.O_CLOEXEC, 0]);
  const attribute = plan.add('fsetxattr', [directory, 'user.cloister', Buffer.from('y'), 0], { tolerate: [k.EOPNOTSUPP] });
  plan.unless(attribute, 'tolerated', () => mark(attributed));

  const fdOf = await runPlan(plan);
  const worked = (slot: Slot): boolean => {
    const fd = fdOf(slot);
    if (fd >= 0) native().close(fd);
    return fd >= 0;
  };
  const [overlay, copies, layers, places, oneByOne, tmpfsUserXattrs] = [there, copied, layered, mountedOn, appended, attributed].map(worked);
  // Without overlayfs, whether a mount that is attached nowhere can be copied and mounted on is what counts.
  const detached = Boolean(copies && places && (layers || !overlay));
  return { overlay: Boolean(overlay), detached, layersOneByOne: Boolean(oneByOne), tmpfsUserXattrs: Boolean(tmpfsUserXattrs) };
}
