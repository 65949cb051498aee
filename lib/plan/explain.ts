import { errnoName } from '../errors.js';
import { fileRights } from '../security/landlock/rights.js';
import type { Explanation } from '../spawn/types.js';
import type { PlanBuilder } from './builder.js';
import * as k from './constants.js';
import { syscallOf } from './failure.js';
import type { Slot, Step } from './steps.js';

/** The plan as the system calls that it makes, in order. */
export function explanationOf(plan: PlanBuilder): Explanation {
  const lines: { side: 'parent' | 'child'; step: string; syscall: string; args: string[] }[] = [];
  const notes = new Map<object, string>();
  const tell = (side: 'parent' | 'child', steps: readonly Step[]): void => {
    for (const step of steps) {
      const line = { side, step: stepText(step), syscall: syscallOf(step.kind), args: step.args.map((arg, index) => argument(step, arg, index)) };
      notes.set(line, noteOf(step));
      lines.push(line);
    }
  };
  tell('parent', plan.steps.parent);
  const maps = (flags: number): void => {
    if (plan.oomScoreAdj !== undefined)
      lines.push({ side: 'parent', step: 'write oom_score_adj', syscall: 'write', args: ['/proc/PID/oom_score_adj', String(plan.oomScoreAdj)] });
    if (!plan.idMap || !(flags & k.CLONE_NEWUSER)) return;
    for (const kind of ['uid', 'gid'] as const) {
      const map = plan.idMap[kind];
      if (typeof map === 'string') lines.push({ side: 'parent', step: `write ${kind}_map`, syscall: 'write', args: [`/proc/PID/${kind}_map`, quote(map)] });
      else lines.push({ side: 'parent', step: `map ids with new${kind}map`, syscall: 'execve', args: [...map] });
    }
  };
  if (plan.joinFlags >= 0) {
    lines.push({
      side: 'parent',
      step: 'make the joiner',
      syscall: 'clone3',
      args: [cloneFlags(plan.joinFlags, [...(plan.ownMemory ? [] : ['CLONE_VM']), 'CLONE_FILES', 'CLONE_CLEAR_SIGHAND'])],
    });
    maps(plan.joinFlags);
    tell('child', plan.steps.join);
  }
  if (plan.cloneFlags !== 0) {
    if (plan.netSlot) lines.push({ side: 'parent', step: 'enter the network namespace', syscall: 'setns', args: [`<${plan.netSlot.name}>`, 'CLONE_NEWNET'] });
    lines.push({
      side: 'parent',
      step: 'make the namespaces',
      syscall: 'clone3',
      args: [
        cloneFlags(plan.cloneFlags & ~k.CLONE_PIDFD, [
          'CLONE_VM',
          ...(plan.vfork ? ['CLONE_VFORK'] : []),
          'CLONE_PIDFD',
          'CLONE_CLEAR_SIGHAND',
          ...(plan.cgroupSlot ? ['CLONE_INTO_CGROUP'] : []),
          ...(plan.joinFlags >= 0 ? ['CLONE_PARENT'] : []),
        ]),
      ],
    });
    if (plan.joinFlags < 0) maps(plan.cloneFlags);
    tell('child', plan.steps.child);
  }
  const steps = lines.map((line, index) => ({ index, ...line }));
  const noteAt = (index: number): string => notes.get(lines[index] as object) ?? '';
  return {
    steps,
    toString: () => {
      const rows: string[] = [];
      let side: string | undefined;
      let step: string | undefined;
      for (const line of steps) {
        if (line.side !== side) rows.push(`${line.side}:`);
        if (line.step !== step || line.side !== side) rows.push(`  # ${line.step}`);
        [side, step] = [line.side, line.step];
        rows.push(`  ${String(line.index).padStart(3)}  ${line.syscall}(${line.args.join(', ')})${noteAt(line.index)}`);
      }
      return rows.join('\n');
    },
  };
}

/** What it opens, which errnos are no failure, and what is passed over then. */
function noteOf({ out, tolerate, skipIfDone, skipIfTolerated }: Step): string {
  const errnos = tolerate.filter((errno) => errno !== 0).map((errno) => errnoName(-errno));
  const opened = out ? ` = <${out.name}>` : '';
  if (skipIfDone > 0) return `${opened}   # if done, passes over ${skipIfDone}${errnos.length > 0 ? `; or ${errnos.join(', ')}` : ''}`;
  if (skipIfTolerated > 0) return `${opened}   # or ${errnos.join(', ')}, and passes over ${skipIfTolerated}`;
  return errnos.length > 0 ? `${opened}   # or ${errnos.join(', ')}` : opened;
}

function stepText(step: Step): string {
  return step.path === undefined || step.label.includes(step.path) ? step.label : `${step.label} ${step.path}`;
}

function argument(step: Step, arg: Step['args'][number], index: number): string {
  if (arg === null) return 'NULL';
  if (typeof arg === 'string') return quote(arg);
  if (typeof arg === 'number') return symbolic(step.kind, index, arg);
  if (arg instanceof Uint8Array) return structText(step.kind, index, arg) ?? bytesText(arg);
  if (Array.isArray(arg)) {
    const words = arg as readonly string[];
    // The environment may hold secrets: its names are enough.
    if (step.kind.startsWith('exec') && index === step.args.length - (step.kind === 'exec' ? 1 : 2))
      return `[${words.map((word) => word.split('=')[0]).join(', ')}]`;
    return `[${words.map(quote).join(', ')}]`;
  }
  const slot = arg as Slot;
  return slot.slot < 0 ? slot.name : `<${slot.name}>`;
}

const quote = (text: string): string => JSON.stringify(text.length > 120 ? `${text.slice(0, 117)}...` : text);

/** struct mount_attr and struct open_how by their fields. */
function structText(kind: string, index: number, bytes: Uint8Array): string | undefined {
  const word = (at: number): number => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).readUInt32LE(at);
  if (kind === 'install_filter') return `{${bytes.byteLength / 8} instructions}`;
  if (kind === 'openat2' && index === 2) return `{flags=${bits(word(0), openFlags)}, resolve=${bits(word(16), resolveFlags)}}`;
  if (kind === 'landlock_create_ruleset') return `{fs=${bits(word(0), landlockRights)}, net=${word(8)}, scoped=${word(16)}}`;
  if (kind === 'landlock_add_rule') return `{access=${word(0)}, port=${word(8)}}`;
  if (kind !== 'mount_setattr' || index !== 3) return undefined;
  const fields = [
    word(0) && `attr_set=${bits(word(0), [...mountAttributes, [k.MOUNT_ATTR_IDMAP, 'MOUNT_ATTR_IDMAP']])}`,
    word(16) && `propagation=${bits(word(16), named('MS_PRIVATE', 'MS_SLAVE'))}`,
    word(24) && 'userns_fd=<user namespace>',
  ];
  return `{${fields.filter(Boolean).join(', ')}}`;
}

function bytesText(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('latin1');
  if (/^[\x20-\x7e\n]+$/.test(text)) return quote(text);
  return `{${bytes.byteLength} bytes: ${Buffer.from(bytes.subarray(0, 32)).toString('hex')}${bytes.byteLength > 32 ? '…' : ''}}`;
}

type Names = readonly (readonly [value: number, name: string])[];

// biome-ignore lint/performance/noDynamicNamespaceImportAccess: constants are told by their own names
const named = (...names: (keyof typeof k)[]): Names => names.map((name) => [k[name] as number, name]);
const openFlags = named('O_WRONLY', 'O_RDWR', 'O_CREAT', 'O_EXCL', 'O_NOCTTY', 'O_NONBLOCK', 'O_DIRECTORY', 'O_NOFOLLOW', 'O_CLOEXEC', 'O_PATH');
const treeFlags: Names = [
  [k.OPEN_TREE_CLONE, 'OPEN_TREE_CLONE'],
  [k.OPEN_TREE_CLOEXEC, 'OPEN_TREE_CLOEXEC'],
  [k.AT_RECURSIVE, 'AT_RECURSIVE'],
  [k.AT_EMPTY_PATH, 'AT_EMPTY_PATH'],
];
const mountAttributes = named('MOUNT_ATTR_RDONLY', 'MOUNT_ATTR_NOSUID', 'MOUNT_ATTR_NODEV', 'MOUNT_ATTR_NOEXEC');
const atFlags = named('AT_EMPTY_PATH', 'AT_RECURSIVE', 'AT_SYMLINK_NOFOLLOW');
const resolveFlags = named('RESOLVE_NO_MAGICLINKS', 'RESOLVE_NO_SYMLINKS', 'RESOLVE_IN_ROOT');
const namespaceNames = named(
  'CLONE_NEWUSER',
  'CLONE_NEWNS',
  'CLONE_NEWPID',
  'CLONE_NEWNET',
  'CLONE_NEWIPC',
  'CLONE_NEWUTS',
  'CLONE_NEWCGROUP',
  'CLONE_NEWTIME',
);

/** kind.index of an argument → the names of its bits. */
const flagArguments: Readonly<Record<string, Names>> = {
  'openat.2': openFlags,
  'open_tree.2': treeFlags,
  'fsmount.1': [[k.FSMOUNT_CLOEXEC, 'FSMOUNT_CLOEXEC']],
  'fsmount.2': mountAttributes,
  'fsopen.1': [[k.FSOPEN_CLOEXEC, 'FSOPEN_CLOEXEC']],
  'mount.3': named('MS_NODEV'),
  'move_mount.4': named('MOVE_MOUNT_F_EMPTY_PATH', 'MOVE_MOUNT_T_EMPTY_PATH'),
  'mount_setattr.2': atFlags,
  'fchownat.4': atFlags,
  'execveat.4': atFlags,
  'setns.1': namespaceNames,
  'unshare.0': namespaceNames,
  'umount2.1': named('MNT_DETACH'),
  'close_range.2': named('CLOSE_RANGE_CLOEXEC'),
  'install_filter.0': [
    [k.SECCOMP_FILTER_FLAG_LOG, 'SECCOMP_FILTER_FLAG_LOG'],
    [k.SECCOMP_FILTER_FLAG_SPEC_ALLOW, 'SECCOMP_FILTER_FLAG_SPEC_ALLOW'],
    [k.SECCOMP_FILTER_FLAG_NEW_LISTENER, 'SECCOMP_FILTER_FLAG_NEW_LISTENER'],
    [k.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 'SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV'],
  ],
  'socket.1': [
    [k.SOCK_CLOEXEC, 'SOCK_CLOEXEC'],
    [k.SOCK_NONBLOCK, 'SOCK_NONBLOCK'],
    [k.SOCK_RAW, 'SOCK_RAW'],
    [k.SOCK_DGRAM, 'SOCK_DGRAM'],
    [k.SOCK_STREAM, 'SOCK_STREAM'],
  ],
};

/** kind.index → the name of each value. */
const valueArguments: Readonly<Record<string, Names>> = {
  'fsconfig.1': [
    [0, 'FSCONFIG_SET_FLAG'],
    [1, 'FSCONFIG_SET_STRING'],
    [6, 'FSCONFIG_CMD_CREATE'],
  ],
  'fsconfig_fd.1': [[5, 'FSCONFIG_SET_FD']],
  'prctl.0': named(
    'PR_SET_PDEATHSIG',
    'PR_SET_DUMPABLE',
    'PR_SET_KEEPCAPS',
    'PR_SET_NO_NEW_PRIVS',
    'PR_CAP_AMBIENT',
    'PR_SET_SPECULATION_CTRL',
    'PR_SCHED_CORE',
  ),
  'ioctl.1': named('SIOCSIFFLAGS', 'TIOCSWINSZ', 'TIOCSPTLCK'),
  'ioctl_number.1': named('TIOCSCTTY', 'TIOCGPTPEER'),
  'rt_sigprocmask.0': named('SIG_SETMASK'),
  'socket.0': named('AF_INET', 'AF_INET6'),
};
const landlockRights: Names = fileRights.map(({ name, bit }) => [bit, name]);
const octalArguments = new Set(['mkdirat.2', 'mknodat.2', 'openat.3', 'umask.0']);

function symbolic(kind: string, index: number, value: number): string {
  if (kind === 'landlock_add_path') return bits(value, landlockRights);
  const key = `${kind}.${index}`;
  const flags = flagArguments[key];
  if (flags) return bits(value, flags);
  const name = valueArguments[key]?.find(([known]) => known === value)?.[1];
  if (name) return name;
  if (octalArguments.has(key)) return `0${value.toString(8)}`;
  return String(value);
}

function bits(value: number, names: Names): string {
  let rest = value;
  const found: string[] = [];
  for (const [bit, name] of names) {
    if (bit !== 0 && (value & bit) === bit) {
      found.push(name);
      rest &= ~bit;
    }
  }
  if (rest !== 0 || found.length === 0) found.push(rest === 0 ? '0' : `0x${(rest >>> 0).toString(16)}`);
  return found.join('|');
}

function cloneFlags(flags: number, always: readonly string[]): string {
  const asked = flags === 0 ? [] : bits(flags, namespaceNames).split('|');
  return [...always, ...asked].join('|');
}
