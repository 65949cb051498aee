import { statSync } from 'node:fs';
import { IsolationError } from '../errors.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import { inodesOf, newFilesystem } from './filesystem.js';
import { attach, openTarget } from './targets.js';

// A minimal /dev: what runtime-spec's config-linux.md, "Default Devices", asks for, and nothing else.

const devices = [
  { name: 'null', device: k.makedev(1, 3) },
  { name: 'zero', device: k.makedev(1, 5) },
  { name: 'full', device: k.makedev(1, 7) },
  { name: 'random', device: k.makedev(1, 8) },
  { name: 'urandom', device: k.makedev(1, 9) },
  { name: 'tty', device: k.makedev(5, 0) },
] as const;

const links = [
  ['/proc/self/fd', 'fd'],
  ['/proc/self/fd/0', 'stdin'],
  ['/proc/self/fd/1', 'stdout'],
  ['/proc/self/fd/2', 'stderr'],
  ['pts/ptmx', 'ptmx'],
] as const;

/** As with Docker. */
const shmSize = 64 * 2 ** 20;

const directories = ['pts', 'shm', 'mqueue'] as const;

/** Fills a directory; `mknod` where the caller may make devices that open, which is root outside of user namespaces only. */
export function fillDev(plan: PlanBuilder, base: Slot, prefix: string, make: 'mknod' | 'bind'): void {
  for (const name of directories) plan.add('mkdirat', [base, prefix + name, 0o755]);
  for (const [target, name] of links) plan.add('symlinkat', [target, base, prefix + name]);
  for (const { name, device } of devices) {
    if (make === 'mknod') plan.add('mknodat', [base, prefix + name, k.S_IFCHR | 0o666, device]);
    else plan.add('mknodat', [base, prefix + name, k.S_IFREG | 0o644, 0]);
  }
}

let areGenuine = false;
/** Where they are bound from the host's /dev: a file in a device's place would be shown to all, and be a mask that can be written to. */
function checkDevices(): void {
  if (areGenuine) return;
  for (const { name, device } of devices) {
    const path = `/dev/${name}`;
    const status = statSync(path, { throwIfNoEntry: false });
    if (status?.isCharacterDevice() && status.rdev === device) continue;
    throw new IsolationError('ERR_CLOISTER_MOUNT', `${path} of this host is not the character device ${device >> 8}:${device & 0xff}`, {
      step: 'bind a device',
      path,
      hint: `Make it again, as root: rm -f ${path} && mknod -m 666 ${path} c ${device >> 8} ${device & 0xff}`,
    });
  }
  areGenuine = true;
}

/** Mounts /dev with its own terminals, shared memory and message queues. The pts mount. */
export function mountDev(plan: PlanBuilder, root: Slot, dev: Slot | undefined, ipcIsNew: boolean): Slot {
  plan.label('mount /dev', '/dev');
  const base = dev ?? newFilesystem(plan, 'tmpfs', { size: '65536', mode: '0755' }, k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC);
  const target = openTarget(plan, root, '/dev', { create: 'directory', noSymlinks: true });
  if (!dev) {
    checkDevices();
    fillDev(plan, base, '', 'bind');
  }
  attach(plan, base, target);
  if (!dev) {
    for (const { name } of devices) {
      plan.label('bind a device', `/dev/${name}`);
      const copy = plan.open(name, 'open_tree', [cwd, `/dev/${name}`, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC]);
      plan.add('move_mount', [copy, '', base, name, k.MOVE_MOUNT_F_EMPTY_PATH]);
      plan.release(copy);
    }
  }
  plan.label('mount /dev/pts', '/dev/pts');
  const pts = newFilesystem(plan, 'devpts', { ptmxmode: '0666', mode: '0620', max: '1024' }, k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC);
  plan.add('move_mount', [pts, '', base, 'pts', k.MOVE_MOUNT_F_EMPTY_PATH]);
  plan.label('mount /dev/shm', '/dev/shm');
  const shm = newFilesystem(
    plan,
    'tmpfs',
    { size: String(shmSize), nr_inodes: String(inodesOf(shmSize)), mode: '1777' },
    k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC,
  );
  plan.add('move_mount', [shm, '', base, 'shm', k.MOVE_MOUNT_F_EMPTY_PATH]);
  plan.release(shm);
  if (ipcIsNew) {
    // mqueue_init_fs_context: the queues of the ipc namespace, mounted by whoever owns that.
    plan.label('mount /dev/mqueue', '/dev/mqueue');
    const mqueue = newFilesystem(plan, 'mqueue', {}, k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC);
    plan.add('move_mount', [mqueue, '', base, 'mqueue', k.MOVE_MOUNT_F_EMPTY_PATH]);
    plan.release(mqueue);
  }
  return pts;
}

/** A terminal of the sandbox's own devpts: its slave side. The master goes to the parent through `channel`. */
export function openTerminal(plan: PlanBuilder, pts: Slot, channel: Slot, size: Uint8Array): Slot {
  plan.label('open the terminal', '/dev/pts');
  const master = plan.open('terminal master', 'openat', [pts, 'ptmx', k.O_RDWR | k.O_NOCTTY | k.O_CLOEXEC, 0]);
  plan.add('ioctl', [master, k.TIOCSPTLCK, Buffer.alloc(4)]);
  // By the master, not by a name that the root could have changed: ioctl_tty(2), since 4.13.
  const slave = plan.open('terminal', 'ioctl_number', [master, k.TIOCGPTPEER, k.O_RDWR | k.O_NOCTTY | k.O_CLOEXEC]);
  plan.add('ioctl', [slave, k.TIOCSWINSZ, size]);
  plan.add('send_fd', [channel, master]);
  plan.release(master);
  return slave;
}
