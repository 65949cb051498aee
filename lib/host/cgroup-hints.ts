import { EACCES, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, EOPNOTSUPP } from '../plan/constants.js';
import type { Advice, Refusal } from './hints.js';

// What the kernel means when a step with a control group is refused: kernel/cgroup/cgroup.c and the controllers.

const ERANGE = 34;
const ENOSPC = 28;
const EAGAIN = 11;

export function cgroupAdvice({ step, syscall, errno, path }: Refusal): Advice | undefined {
  if (step === 'make a control group') return forMaking(errno, path);
  if (step === 'enter the control group') return forEntering(errno, path, syscall);
  if (step === 'limit devices') {
    return errno === 1
      ? {
          what: 'a device program may be attached by root only (CAP_BPF or CAP_SYS_ADMIN, and CAP_NET_ADMIN, in the initial user namespace)',
          hint: 'Leave `devices` out: in a user namespace no device node can be made, and /dev has the harmless ones.',
        }
      : undefined;
  }
  const limit = /^set (\S+) to (.*)$/.exec(step);
  return limit ? forLimit(limit[1] as string, limit[2] as string, errno) : undefined;
}

function forMaking(errno: number, path: string | undefined): Advice | undefined {
  if (errno === EEXIST)
    return { what: 'a group of this name exists', hint: `Cgroup.open('${path}') gives it, or leave the name out: one that nobody else has is chosen.` };
  if (errno === EACCES)
    return { what: 'this user may make no groups there', hint: 'The directory has to be delegated to it: Cgroup.support() says where it may.' };
  if (errno === EAGAIN) return { what: 'cgroup.max.descendants or cgroup.max.depth of a group above has been reached' };
  if (errno === ENODEV || errno === ENOENT) return { what: 'the group that it should be part of has been removed' };
  return undefined;
}

function forEntering(errno: number, path: string | undefined, syscall: string): Advice | undefined {
  if (errno === EBUSY) {
    return {
      what: 'this group has children with controllers, and a group of v2 has either processes or such children',
      hint: 'Make a child for the processes: cgroup.child(name).',
    };
  }
  if (errno === EACCES) {
    return {
      what: 'processes may be moved only by who may write to cgroup.procs of this group and of the nearest group above both',
      hint: `This process itself has to be inside the delegated group that ${path} is in.`,
    };
  }
  if (errno === EOPNOTSUPP) return { what: 'the group is of an invalid or threaded kind (cgroup.type), and takes threads only' };
  if (errno === ENODEV) return { what: 'the group has been removed' };
  if (errno === ENOSPC && syscall === 'write') return { what: 'its cpuset.cpus or cpuset.mems is empty' };
  if (errno === EAGAIN && syscall === 'clone3') return { what: 'the limit of processes (pids.max) has been reached, here or in a group above' };
  return undefined;
}

function forLimit(file: string, text: string, errno: number): Advice | undefined {
  if (errno === ENOENT)
    return {
      what: `this kernel has no ${file}`,
      hint: 'Cgroup.support() lists the controllers that are here; the file may be newer than this kernel, or a part of it that was not built.',
    };
  if (errno === EBUSY && file.startsWith('memory.')) return { what: 'more than that is in use, and cannot be freed' };
  if (errno === EBUSY && file.startsWith('devices.')) return { what: 'the group above does not allow it' };
  if (errno === ENODEV && /^(io|blkio)\./.test(file))
    return { what: `${text.split(' ')[0]} is no block device here, or a part of one`, hint: 'Name the whole disk: lsblk prints MAJ:MIN.' };
  if (errno === EOPNOTSUPP && /^(io|blkio)\..*weight/.test(file)) {
    return {
      what: `the scheduler of ${text.split(' ')[0]} knows no weights`,
      hint: 'BFQ does: echo bfq > /sys/block/NAME/queue/scheduler (as root; the module may be missing).',
    };
  }
  if (errno === EINVAL && /^hugetlb\./.test(file)) return { what: 'not a size of huge pages that this kernel has' };
  if (errno === EINVAL && file.startsWith('cpu.cfs')) return { what: `${text} µs is more than the group above allows, or less than the burst` };
  if (errno === EINVAL && file === 'cpu.max.burst') return { what: 'a burst may not be larger than the quota (cpu.max)' };
  if ((errno === EACCES || errno === ENOSPC || errno === EINVAL || errno === ERANGE) && file.startsWith('cpuset.')) {
    return {
      what: `the group above does not have all of ${text}, or this host has not`,
      hint: 'nproc and /sys/fs/cgroup/cpuset.cpus.effective tell what there is.',
    };
  }
  if (errno === EINVAL) return { what: `the kernel does not take '${text}' for ${file}` };
  if (errno === EACCES || errno === 1)
    return { what: `this user may not change ${file}: the group is not its own, or the limit belongs to who delegated the group` };
  return undefined;
}
