import { readFileSync } from 'node:fs';
import * as k from '../plan/constants.js';
import { EACCES, EINVAL, ENOENT, ENOTDIR, EPERM, EROFS } from '../plan/constants.js';
import { cgroupAdvice } from './cgroup-hints.js';
import { labelAdvice } from './label-hints.js';
import { landlockAdvice } from './landlock-hints.js';
import { parseMountInfo } from './mountinfo.js';
import { bringIn } from './on-host.js';
import { speculationAdvice } from './speculation-hints.js';

// Why this host refused a step, found out after it did. Each finding names what was read; nothing is guessed from a message.

export interface Refusal {
  readonly step: string;
  readonly syscall: string;
  /** Positive. */
  readonly errno: number;
  readonly path: string | undefined;
  readonly cloneFlags: number;
}

export interface Advice {
  /** What the errno means here, where the kernel's text misleads. */
  readonly what?: string;
  readonly hint?: string;
  readonly evidence?: readonly string[];
}

/** Reads a file of the host; undefined if it cannot be. Tests give their own. */
export type Look = (path: string) => string | undefined;

export const look: Look = (path) => {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
};

export function adviceFor(refusal: Refusal, at: Look = look): Advice | undefined {
  for (const rule of rules) {
    const advice = rule(refusal, at);
    if (advice) return advice;
  }
  return undefined;
}

type Rule = (refusal: Refusal, at: Look) => Advice | undefined;

const sysctl = (at: Look, name: string): string | undefined => at(`/proc/sys/${name.replaceAll('.', '/')}`);

/** copy_namespaces in kernel/nsproxy.c: CAP_SYS_ADMIN, which an ordinary user has in a user namespace of its own only. */
const withoutUserNamespace: Rule = ({ syscall, errno, cloneFlags }, at) => {
  if (syscall !== 'clone3' || errno !== EPERM || cloneFlags & k.CLONE_NEWUSER) return undefined;
  const capabilities = /^CapEff:\s*([0-9a-f]+)/m.exec(at('/proc/self/status') ?? '')?.[1];
  if (capabilities === undefined || (BigInt(`0x${capabilities}`) >> 21n) & 1n) return undefined;
  return {
    what: 'only root may make namespaces without a user namespace that owns them',
    hint: "Leave namespaces.user as it is by default ('new'), or run as root.",
    evidence: [`/proc/self/status has CapEff ${capabilities}, without CAP_SYS_ADMIN`],
  };
};

/** Debian's and Ubuntu's older switch. */
const userNamespacesOff: Rule = ({ syscall, errno }, at) => {
  if (syscall !== 'clone3' || errno !== EPERM || sysctl(at, 'kernel.unprivileged_userns_clone') !== '0') return undefined;
  return {
    what: 'user namespaces are switched off for ordinary users',
    hint: 'sysctl -w kernel.unprivileged_userns_clone=1 (as root) switches them on, or run as root.',
    evidence: ['/proc/sys/kernel/unprivileged_userns_clone is 0'],
  };
};

/** ENOSPC of clone is no disk that is full: a namespace limit has been reached (inc_ucount in kernel/ucount.c). */
const namespaceLimit: Rule = ({ syscall, errno, cloneFlags }, at) => {
  if (syscall !== 'clone3' || (errno !== 28 && errno !== 87)) return undefined;
  const kinds: [flag: number, name: string][] = [
    [k.CLONE_NEWUSER, 'user'],
    [k.CLONE_NEWNS, 'mnt'],
    [k.CLONE_NEWPID, 'pid'],
    [k.CLONE_NEWNET, 'net'],
    [k.CLONE_NEWIPC, 'ipc'],
    [k.CLONE_NEWUTS, 'uts'],
    [k.CLONE_NEWCGROUP, 'cgroup'],
    [k.CLONE_NEWTIME, 'time'],
  ];
  const limits = kinds.filter(([flag]) => cloneFlags & flag).map(([, name]) => [name, sysctl(at, `user.max_${name}_namespaces`)] as const);
  const zero = limits.filter(([, limit]) => limit === '0').map(([name]) => `user.max_${name}_namespaces`);
  if (zero.length > 0) {
    return {
      what: `${zero.join(', ')} ${zero.length > 1 ? 'are' : 'is'} 0`,
      hint: `sysctl -w ${zero.map((name) => `${name}=10000`).join(' ')} (as root) allows them.`,
      evidence: zero.map((name) => `/proc/sys/${name.replaceAll('.', '/')} is 0`),
    };
  }
  return {
    what: 'a limit of namespaces has been reached, here or in a user namespace above (or user namespaces are nested 32 deep)',
    hint: `End some sandboxes, or raise ${limits.map(([name]) => `user.max_${name}_namespaces`).join(', ')}.`,
    evidence: limits.filter(([, limit]) => limit !== undefined).map(([name, limit]) => `/proc/sys/user/max_${name}_namespaces is ${limit}`),
  };
};

/** Ubuntu 23.10 and later: the namespace is made, but whoever is in it has no capability, so the next step fails. */
const appArmor: Rule = ({ syscall, errno }, at) => {
  if (errno !== EPERM && errno !== EACCES) return undefined;
  if (!['clone3', 'write', 'mount_setattr', 'openat'].includes(syscall)) return undefined;
  if (sysctl(at, 'kernel.apparmor_restrict_unprivileged_userns') !== '1') return undefined;
  const profile = at('/proc/self/attr/apparmor/current') ?? at('/proc/self/attr/current') ?? 'unknown';
  return {
    what: "AppArmor takes the capabilities of an ordinary user's user namespaces away",
    hint:
      'Give this Node binary an AppArmor profile with `userns,` (docs/errors.md has one), or, for all programs, ' +
      'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (as root).',
    evidence: ['/proc/sys/kernel/apparmor_restrict_unprivileged_userns is 1', `this process has the profile ${profile}`],
  };
};

/** verify_root_map in kernel/user_namespace.c, since 5.12. */
const rootWithoutSetfcap: Rule = ({ step, errno }, at) => {
  if (step !== 'write uid_map' || errno !== EPERM) return undefined;
  const status = at('/proc/self/status') ?? '';
  const capabilities = /^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1];
  if (!/^Uid:\s*\d+\s+0\s/m.test(status) || capabilities === undefined || (BigInt(`0x${capabilities}`) >> 31n) & 1n) return undefined;
  return {
    what: 'root without CAP_SETFCAP may not map itself into a user namespace',
    hint: 'Run as another user, or keep that capability (docker run --cap-add=SETFCAP).',
    evidence: [`/proc/self/status has uid 0 and CapEff ${capabilities}`],
  };
};

/** What the profiles of container engines filter. */
const filtered = new Set([
  'clone3',
  'setns',
  'unshare',
  'fsopen',
  'fsconfig',
  'fsmount',
  'open_tree',
  'move_mount',
  'mount_setattr',
  'pivot_root',
  'umount2',
  'openat2',
  'sethostname',
  'setdomainname',
]);

/** Docker's default profile answers clone3 with ENOSYS and namespace flags with EPERM. */
const outerFilter: Rule = ({ syscall, errno }, at) => {
  if (!filtered.has(syscall)) return undefined;
  const mode = /^Seccomp:\s*(\d)/m.exec(at('/proc/self/status') ?? '')?.[1];
  if (mode !== '2' || (errno !== EPERM && errno !== 38)) return undefined;
  const container = at('/.dockerenv') !== undefined ? ' (a Docker container)' : at('/run/.containerenv') !== undefined ? ' (a Podman container)' : '';
  return {
    what: `a system call filter around this process${container} refuses ${syscall}`,
    hint:
      'Run the container with a seccomp profile that allows clone3, unshare, setns and the mount calls ' +
      '(docker run --security-opt seccomp=unconfined, and systempaths=unconfined for /proc).',
    evidence: ['/proc/self/status has Seccomp: 2: a filter was put on this process from outside'],
  };
};

/** create_user_ns in kernel/user_namespace.c: EPERM in a chroot, and for an id that has no name in the present namespace. */
const chrooted: Rule = ({ syscall, errno }, at) => (syscall === 'clone3' && errno === EPERM ? chrootAdvice(at) : undefined);

export function chrootAdvice(at: Look = look): (Advice & { readonly what: string }) | undefined {
  const mounts = parseMountInfo(at('/proc/self/mountinfo') ?? '');
  if (mounts.length > 0 && !mounts.some(({ path }) => path === '/')) {
    return {
      what: 'this process lives in a chroot, where the kernel makes no user namespace',
      hint: 'Enter the directory by pivot_root instead of chroot, or run outside of it.',
      evidence: ['/proc/self/mountinfo has no mount at /'],
    };
  }
  return undefined;
}

/** mount_too_revealing in fs/namespace.c. */
const coveredKernelFiles: Rule = ({ syscall, errno, step }, at) => {
  const which = step === 'mount /proc' ? '/proc' : step === 'mount /sys' ? '/sys' : undefined;
  if (syscall !== 'fsmount' || errno !== EPERM || !which) return undefined;
  const mounts = parseMountInfo(at('/proc/self/mountinfo') ?? '');
  const below = mounts.filter(
    ({ path, type }) =>
      path.startsWith(`${which}/`) &&
      !(which === '/sys' && /^(cgroup2?|tmpfs|debugfs|tracefs|securityfs|pstore|bpf|configfs|fusectl|efivarfs)$/.test(type)) &&
      !['binfmt_misc', 'autofs'].includes(type),
  );
  const readonly = mounts.some(({ path, options }) => path === which && options.includes('ro'));
  return {
    what: `a new ${which} would show what is covered in the present one`,
    hint:
      below.length > 0
        ? `Something is mounted over parts of ${which}, as container engines do: run this container with unmasked paths (docker run --security-opt systempaths=unconfined; podman --security-opt unmask=ALL).`
        : `${which} must be mounted, and writable, where the user namespace is made${readonly ? ': here it is read-only' : ''}.`,
    evidence:
      below.length > 0
        ? below.map(({ path }) => `${path} is mounted over`)
        : [`/proc/self/mountinfo has ${mounts.filter(({ path }) => path === which).length} mounts at ${which}`],
  };
};

/** seccomp(2): EACCES for whoever may still gain privileges and is not allowed to filter; EINVAL or ENOSYS without CONFIG_SECCOMP_FILTER. */
const noFilter: Rule = ({ syscall, errno }) => {
  if (syscall !== 'seccomp') return undefined;
  if (errno === EACCES) {
    return {
      what: 'without no_new_privs only CAP_SYS_ADMIN may install a filter of system calls',
      hint: "Leave noNewPrivileges as it is by default (true), or have no filter: seccomp: 'unconfined'.",
    };
  }
  if (errno !== EINVAL && errno !== 38) return undefined;
  return { what: 'this kernel has no filters of system calls (CONFIG_SECCOMP_FILTER)', hint: "seccomp: 'unconfined' runs the program without one." };
};

/** proc_pid_lookup and sysfs make nothing by name; the /dev that all roots share is read-only. */
const kernelTarget: Rule = ({ syscall, errno, step, path }) => {
  if (!step.startsWith('mount ') || (syscall !== 'mkdirat' && syscall !== 'openat')) return undefined;
  const [, top] = /^\/(proc|sys|dev)\//.exec(path ?? '') ?? [];
  if (top === undefined || ![ENOENT, EPERM, EACCES, EROFS].includes(errno)) return undefined;
  return {
    what: `nothing new can be made in the sandbox's /${top}`,
    hint: top === 'dev' ? 'Choose a target elsewhere: a program can be told where.' : 'Mount over what is there, or choose a target elsewhere.',
  };
};

const readonlyTarget: Rule = ({ syscall, errno, path }) =>
  errno === EROFS && (syscall === 'mkdirat' || syscall === 'openat')
    ? { what: `${path} does not exist in the root, which is read-only`, hint: 'Make it in the layers, or let the root be writable.' }
    : undefined;

const noSuchSource: Rule = ({ syscall, errno, step, path }) =>
  errno === ENOENT &&
  (syscall === 'open_tree' || syscall === 'openat') &&
  /^(bind|use a layer|use the writable layer|use a directory as root|(writable )?layer of a mount)/.test(step)
    ? { what: `${path} does not exist on this host` }
    : undefined;

const noDirectory: Rule = ({ syscall, errno, step, path }) =>
  errno === ENOTDIR &&
  (syscall === 'openat' || syscall === 'open_tree') &&
  /^(use a layer|use the writable layer|use a directory as root|(writable )?layer of a mount)/.test(step)
    ? { what: `${path} is not a directory` }
    : undefined;

/** mount_setattr(2): "EINVAL The underlying filesystem … does not support idmapped mounts". */
const noIdmappedMounts: Rule = ({ syscall, errno, step }) => {
  if (syscall !== 'mount_setattr' || errno !== EINVAL) return undefined;
  const what = 'its file system cannot map owners (idmapped mounts)';
  if (step === 'bind') return { what, hint: 'Bind it without `idMap`: owners that the sandbox does not have appear as nobody.' };
  if (!/^(use a layer|use a directory as root|layer of a mount)/.test(step)) return undefined;
  return {
    what,
    hint: "Use a copy on another one (ext4, xfs, btrfs; tmpfs since Linux 6.3), or idMap: 'self' if root inside may be root of this host by its id.",
  };
};

/** ELOOP of openat2(2): RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS, or a loop indeed. */
const symlinkTrap: Rule = ({ syscall, errno, path }) => {
  if (syscall !== 'openat2' || errno !== 40) return undefined;
  if (/^\/(proc|sys|dev)$/.test(path ?? '')) {
    return {
      what: `${path} is a symlink in this root, or leads through one`,
      hint: 'A root whose /proc, /sys or /dev are symlinks is refused: what is mounted there must be found there.',
    };
  }
  return {
    what: `the way to ${path} in this root goes through a link of /proc, or through symlinks without end`,
    hint: 'Name the place itself, without such links.',
  };
};

/** do_move_mount in fs/namespace.c: a file cannot cover a directory, nor a directory a file. */
const otherKind: Rule = ({ syscall, errno, step, path }) => {
  if (syscall === 'move_mount' && errno === EINVAL && step === 'mount the root') return { what: 'what is to be the root is not a directory' };
  const covers = 'A file can only be mounted over a file, and a directory over a directory.';
  if (!step.startsWith('mount ')) return undefined;
  if (syscall === 'move_mount' && errno === EINVAL && step === 'mount on a directory of the host') return { what: `${path} is no directory` };
  if (syscall === 'move_mount' && errno === EINVAL) return { what: `${path} is a directory in the root`, hint: covers };
  if (syscall === 'openat2' && errno === ENOTDIR) return { what: `${path} is a file in the root, or lies below one`, hint: covers };
  return undefined;
};

const deadEnd: Rule = ({ syscall, errno, step, path }) =>
  syscall === 'openat2' && errno === ENOENT && step.startsWith('mount ')
    ? {
        what: `in the root, the way to ${path} goes through a symlink that leads nowhere`,
        hint: 'Make what the symlink names, inside the root, or choose another target.',
      }
    : undefined;

/** The upper directory's owner is that of the root: may_create in fs/namei.c. */
const strangersRoot: Rule = ({ syscall, errno, step, path }) =>
  (syscall === 'mkdirat' || syscall === 'openat') && errno === EACCES && step.startsWith('mount ')
    ? {
        what: `${path} does not exist in the root, and root inside may not make it: the directory belongs to somebody else`,
        hint: 'Make it before, or give the directory (of a root with a writable layer: that one) to the id outside that is root inside.',
      }
    : undefined;

const badOverlay: Rule = ({ syscall, errno, step }) =>
  (syscall === 'fsconfig' || syscall === 'mount') && errno === EINVAL && step.includes('overlay')
    ? {
        what: 'the kernel refuses these layers',
        hint: 'A layer must be a directory on a file system that can be one (not an overlay on an overlay on an overlay), and no layer may be part of another. `dmesg` has the reason.',
      }
    : undefined;

/** ovl_setup_trap in fs/overlayfs/super.c: a directory that is found twice. */
const layerTwice: Rule = ({ syscall, errno, step }) => {
  if ((syscall !== 'fsconfig' && syscall !== 'fsmount' && syscall !== 'mount') || errno !== 40) return undefined;
  return step.includes('writable layer')
    ? { what: 'the writable layer is one of the layers, or lies in one', hint: 'Use a directory of its own as upper.' }
    : { what: 'two of the layers are the same directory, or one lies in another', hint: 'No layer may be part of another.' };
};

/** setns(2): CAP_SYS_ADMIN is needed in the user namespace that owns it; proc_init_fs_context: in that of the pid namespace. */
const otherOwner: Rule = ({ syscall, errno, step }) => {
  if (syscall === 'fsconfig' && errno === EINVAL && step.startsWith('mount /proc')) {
    return {
      what: 'this kernel cannot mount /proc of a pid namespace that is joined from outside; Linux 6.17 can',
      hint: "Join the user namespace that owns it as well, if that is not the host's; or use { namespaces: { pid, user: 'host' } }.",
    };
  }
  if (errno !== EPERM) return undefined;
  if (syscall === 'setns' && step.startsWith('join the')) {
    return {
      what: 'another user namespace owns it than the one that is entered',
      hint: 'Namespaces that are joined together need one owner: Namespace.create(type, { owner }).',
    };
  }
  if (syscall === 'fsconfig' && step.startsWith('mount /proc')) {
    return {
      what: 'the pid namespace is owned by another user namespace than the one that is entered',
      hint: 'Join the owner of the pid namespace as well: { namespaces: { pid, user: await pid.owner() } }.',
    };
  }
  return undefined;
};

/** What the values of options meet: the option is named, as only the caller can mend it. */
const refusedValue: Rule = ({ syscall, errno, step, path }) => {
  if (step === 'enter the working directory') {
    if (errno === ENOENT)
      return {
        what: `there is no directory ${path} in the root`,
        hint: bringIn(path ?? '') ?? '`cwd` is a path inside the sandbox; `mounts` can bring a directory in.',
      };
    if (errno === ENOTDIR) return { what: `${path} is not a directory in the root` };
    if (errno === EACCES) return { what: `root inside may not enter ${path}` };
  }
  if (step === 'set a resource limit' && errno === EPERM) {
    return {
      what: `${path} may not be raised above the hard limit of this process`,
      hint: 'Choose a lower one, or raise that of this process before (ulimit -H, LimitNOFILE= and its like in a systemd unit).',
    };
  }
  if (step === 'write oom_score_adj' && (errno === EACCES || errno === EPERM)) {
    return {
      what: 'a score below the lowest that this process ever had needs CAP_SYS_RESOURCE',
      hint: 'Choose a higher oomScoreAdj: what is killed first should be the sandbox anyway.',
    };
  }
  if (step === 'set a sysctl') {
    if (errno === ENOENT) return { what: 'this kernel has no such sysctl, or its namespace has none of its own' };
    if (errno === EINVAL && syscall === 'write') return { what: 'the sysctl does not take this value' };
    if (errno === EACCES || errno === EPERM) return { what: 'this sysctl may only be set outside of user namespaces' };
  }
  if (step === 'set the clocks' && errno === 34) {
    return {
      what: 'no clock may be set below 0, or more than about 146 years ahead',
      hint: 'timeOffsets are milliseconds; a negative one can be as large as the machine has been running.',
    };
  }
  return undefined;
};

/** nft_expr_type_get in net/netfilter/nf_tables_api.c, __netlink_create: what is not built, or cannot be loaded by whoever asks. */
const noTransparentProxy: Rule = ({ step, errno }) => {
  if (!step.startsWith('intercept what is sent') || ![k.ENOENT, k.EOPNOTSUPP, k.EPROTONOSUPPORT].includes(errno)) return undefined;
  return {
    what: 'this kernel has no nf_tables with tproxy, which egress is decided by',
    hint: 'As root, `modprobe -a nf_tables nft_tproxy` (CONFIG_NFT_TPROXY); without `egress`, nothing leaves a sandbox either.',
  };
};

const rules: readonly Rule[] = [
  noTransparentProxy,
  cgroupAdvice,
  landlockAdvice,
  labelAdvice,
  speculationAdvice,
  otherOwner,
  refusedValue,
  withoutUserNamespace,
  userNamespacesOff,
  namespaceLimit,
  appArmor,
  coveredKernelFiles,
  rootWithoutSetfcap,
  noFilter,
  outerFilter,
  chrooted,
  kernelTarget,
  readonlyTarget,
  noSuchSource,
  noDirectory,
  noIdmappedMounts,
  symlinkTrap,
  otherKind,
  deadEnd,
  strangersRoot,
  badOverlay,
  layerTwice,
];
