/** How the probe (test/fixtures/probe) answers: one JSON object per line. */
import type { FileType, IdRange, Rlimit } from 'cloister';

export interface Outcome {
  /** Its name, or null where the attempt succeeded. */
  readonly errno: string | null;
}
type OrFailed<T> = ({ readonly errno: null } & T) | ({ readonly errno: string } & { readonly [K in keyof T]?: never });

type NamespaceFile = 'cgroup' | 'ipc' | 'mnt' | 'net' | 'pid' | 'pid_for_children' | 'time' | 'time_for_children' | 'user' | 'uts';
export interface Ids {
  readonly ruid: number;
  readonly euid: number;
  readonly suid: number;
  readonly fsuid: number;
  readonly rgid: number;
  readonly egid: number;
  readonly sgid: number;
  readonly fsgid: number;
  readonly groups: readonly number[];
  readonly uidMap: readonly IdRange[];
  readonly gidMap: readonly IdRange[];
  readonly setgroups: string;
}
/** Sixteen hexadecimal digits each. */
export type CapabilitySets = Readonly<Record<'inheritable' | 'permitted' | 'effective' | 'bounding' | 'ambient', string>>;
export interface ProcessStatus {
  readonly pid: number;
  readonly ppid: number;
  readonly sid: number;
  readonly pgid: number;
  readonly noNewPrivs: number;
  readonly seccomp: number;
  readonly seccompFilters: number | null;
  readonly sigBlk: string;
  readonly sigIgn: string;
  readonly sigCgt: string;
  readonly umask: string;
}
export interface OpenDescriptor {
  readonly fd: number;
  readonly target: string | null;
  readonly access: 'r' | 'w' | 'rw' | 'path';
  readonly nonblocking: boolean;
  readonly type: FileType | 'anonymous';
  readonly mode: string;
  /** 'major:minor' */
  readonly rdev: string;
  readonly dev: string;
  readonly ino: number;
}
export interface MountEntry {
  readonly id: number;
  readonly parent: number;
  readonly device: string;
  readonly root: string;
  readonly mountPoint: string;
  readonly options: readonly string[];
  /** 'shared:1', 'master:2', …; empty if private. */
  readonly propagation: readonly string[];
  readonly fsType: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}
export interface Interface {
  readonly name: string;
  readonly index: number;
  readonly up: boolean;
  readonly mac: string;
  readonly mtu: number | null;
  /** '127.0.0.1/8' */
  readonly addresses: readonly string[];
}
export interface ProcessEntry {
  readonly pid: number;
  readonly ppid: number;
  readonly comm: string;
  readonly state: string;
}
export interface WindowSize {
  readonly columns: number;
  readonly rows: number;
}
export interface Terminal {
  /** Of the descriptors 0, 1 and 2. */
  readonly isatty: readonly [boolean, boolean, boolean];
  readonly ttyname: readonly [string | null, string | null, string | null];
  readonly winsize: WindowSize | null;
  /** The process group in the foreground. */
  readonly foreground: number | null;
  /** 'major:minor' of the controlling terminal. */
  readonly controlling: string | null;
  /** What opening /dev/tty gave. */
  readonly openError: string | null;
}
export interface CgroupMembership {
  readonly hierarchy: number;
  readonly controllers: string;
  readonly path: string;
}
export interface FileStatus {
  readonly type: FileType;
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: string;
  readonly size: number;
  readonly ino: number;
  readonly dev: string;
  readonly links: number;
  readonly target?: string;
}

interface ObjectLooks {
  readonly namespaces: Readonly<Record<NamespaceFile, number>>;
  readonly ids: Ids;
  readonly caps: CapabilitySets;
  readonly status: ProcessStatus;
  readonly oom: { readonly scoreAdj: number };
  readonly rlimits: Readonly<Record<Rlimit, { readonly soft: number; readonly hard: number }>>;
  readonly hostname: { readonly hostname: string; readonly domainname: string };
  /** Nanoseconds, in decimal. */
  readonly clocks: Readonly<Record<'realtime' | 'monotonic' | 'boottime', string>>;
  readonly tty: Terminal;
}
interface NestedLooks {
  readonly dumpable: number;
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly cgroup: readonly CgroupMembership[];
  readonly fds: readonly OpenDescriptor[];
  readonly mounts: readonly MountEntry[];
  readonly interfaces: readonly Interface[];
  readonly processes: readonly ProcessEntry[];
}
export type Report = ObjectLooks & NestedLooks;

type Written = Outcome & { readonly written: number };
type Received = Outcome & { readonly received?: string };
/** How many of them could be had. */
type Exhausted = Outcome & { readonly made: number };
/** How a child ended. */
type Ending = OrFailed<{ readonly signal: string | null; readonly code: number | null }>;
type Pids = Outcome & { readonly pids: readonly number[] };
type OutcomeVerb =
  | 'create'
  | 'append'
  | 'open'
  | 'mkdir'
  | 'symlink'
  | 'link'
  | 'unlink'
  | 'rmdir'
  | 'rename'
  | 'chmod'
  | 'chown'
  | 'mknod'
  | 'setxattr'
  | 'mount'
  | 'umount'
  | 'unshare'
  | 'map-self'
  | 'setns'
  | 'chroot'
  | 'chdir'
  | 'sethostname'
  | 'settimeofday'
  | 'kill'
  | 'ptrace'
  | 'tiocsti'
  | 'setuid'
  | 'setgid'
  | 'setgroups'
  | 'socket'
  | 'spin'
  | 'sleep'
  | 'fork-bomb'
  | 'reread'
  | 'serve-unix'
  | 'write-memory'
  | 'swap-names'
  | 'count';

/** Verbs that answer with one line each. */
export type Answers = ObjectLooks & { readonly [K in keyof NestedLooks]: Pick<NestedLooks, K> } & {
  readonly [V in OutcomeVerb]: Outcome;
} & {
  readonly report: Report;
  readonly read: OrFailed<{ readonly text: string }>;
  readonly stat: OrFailed<FileStatus>;
  readonly lstat: OrFailed<FileStatus>;
  readonly ls: OrFailed<{ readonly entries: readonly string[] }>;
  readonly statfs: OrFailed<
    {
      readonly type: string;
      readonly sizeBytes: number;
      readonly freeBytes: number;
      readonly files: number;
    } & Readonly<Record<'readonly' | 'nosuid' | 'nodev' | 'noexec', boolean>>
  >;
  readonly getxattr: OrFailed<{ readonly value: string }>;
  readonly fill: Written;
  readonly 'echo-fd': OrFailed<{ readonly bytes: number; readonly text: string }>;
  readonly alloc: OrFailed<{ readonly bytes: number; readonly peakBytes: number }>;
  readonly 'alloc-child': Ending;
  /** By a child, whose code is its errno. */
  readonly 'huge-pages': Ending;
  readonly 'exhaust-descriptors': Exhausted;
  readonly 'exhaust-terminals': Exhausted;
  readonly 'exhaust-inodes': Exhausted;
  readonly 'exhaust-pipes': Exhausted;
  readonly burn: Outcome & { readonly wallUs: number; readonly cpuUs: number };
  readonly affinity: OrFailed<{ readonly count: number; readonly cpus: readonly number[] }>;
  readonly churn: Outcome & { readonly forked: number };
  readonly direct: OrFailed<{ readonly bytes: number; readonly us: number }>;
  readonly orphans: Pids;
  readonly zombies: Outcome & { readonly made: number; readonly zombies: number };
  readonly 'forkbomb-light': Outcome & { readonly forked: number };
  readonly block: Readonly<{ signal: string; code: number; sender: number; senderUid: number }>;
  readonly pts: OrFailed<{ readonly name: string }>;
  readonly 'connect-tcp': Received;
  readonly 'connect-unix': Received;
  readonly 'send-udp': Received;
  readonly 'bind-tcp': OrFailed<{ readonly port: number }>;
  readonly 'serve-tcp': OrFailed<{ readonly port: number }>;
  readonly 'ping-lo': Readonly<Record<'ipv4' | 'ipv6', string | null>>;
  readonly syscall: Outcome & { readonly result: number };
  /** An errno for each number, or 0 where the call would have reached the kernel. */
  readonly 'filter-answers': Outcome & { readonly answers: readonly number[] };
  readonly 'call-by-32-bits': Outcome;
  readonly 'traced-syscall': Outcome;
  readonly 'keyctl-session': OrFailed<{ readonly keyring: number }>;
  readonly capget: OrFailed<Pick<CapabilitySets, 'inheritable' | 'permitted' | 'effective'>>;
};
export type TellingVerb = keyof Answers;
