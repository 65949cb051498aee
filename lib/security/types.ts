/** As in capabilities(7) and OCI: 'CAP_NET_BIND_SERVICE'. */
export type Capability = `CAP_${string}`;
export type Rlimit =
  | 'as'
  | 'core'
  | 'cpu'
  | 'data'
  | 'fsize'
  | 'locks'
  | 'memlock'
  | 'msgqueue'
  | 'nice'
  | 'nofile'
  | 'nproc'
  | 'rss'
  | 'rtprio'
  | 'rttime'
  | 'sigpending'
  | 'stack';
/** linux.seccomp of the OCI runtime specification. */
export interface SeccompProfile {
  defaultAction: string;
  defaultErrnoRet?: number;
  architectures?: string[];
  flags?: string[];
  syscalls?: {
    names: string[];
    action: string;
    errnoRet?: number;
    args?: { index: number; value: number | bigint; valueTwo?: number | bigint; op: string }[];
  }[];
}
export type SeccompNotify = Readonly<Record<string, (call: SeccompCall) => SeccompAnswer | Promise<SeccompAnswer>>>;
export interface SeccompCall {
  syscall: string;
  args: readonly bigint[];
  pid: number;
  /** Strings and bytes of the caller's memory; undefined once the caller is gone. */
  readString(address: bigint): string | undefined;
  readBytes(address: bigint, length: number): Buffer | undefined;
}
export type SeccompAnswer = 'continue' | { errno: string } | { value: number | bigint } | { fd: number };
/** What the program's processor may not guess, or has to forget. */
export type Speculation = 'store-bypass' | 'indirect-branch' | 'l1d-flush';
/** Of AppArmor, as the kernel tells it of a process: its mode is 'enforce', 'complain', 'kill' … */
export interface AppArmorProfile {
  profile: string;
  mode?: string;
}
/** Contexts of SELinux: of the program (process.selinuxLabel of the OCI runtime specification), of the files of mounts that are made for it (linux.mountLabel). */
export interface SelinuxLabels {
  process?: string | undefined;
  mount?: string | undefined;
}
export interface LandlockRules {
  read?: readonly string[];
  write?: readonly string[];
  execute?: readonly string[];
  connectTcp?: readonly number[];
  bindTcp?: readonly number[];
  scope?: readonly ('signal' | 'abstract-unix-socket')[];
}
