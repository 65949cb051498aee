// The kinds of step, the same list as csrc/child/steps.def in the same order (which is the encoding); a test holds the two
// against each other. The letters say how an argument is passed:
//   i a number, d a descriptor, s a string or null, b bytes or null, n the length of the bytes before it (never given),
//   v a vector of strings

export const stepKinds = {
  capset: 'bb',
  chdir: 's',
  close: 'd',
  close_range: 'iii',
  dup3: 'dii',
  execveat: 'dsvvi',
  fchdir: 'd',
  fchmodat: 'dsi',
  fchownat: 'dsiii',
  fsconfig: 'dissi',
  fsconfig_fd: 'dissd',
  fsmount: 'dii',
  fsopen: 'si',
  fspick: 'dsi',
  ioctl: 'dib',
  ioctl_number: 'dii',
  keyctl: 'isiii',
  landlock_add_rule: 'dibi',
  landlock_create_ruleset: 'bni',
  landlock_restrict_self: 'di',
  mkdirat: 'dsi',
  mknodat: 'dsii',
  mount: 'sssis',
  mount_setattr: 'dsibn',
  move_mount: 'dsdsi',
  open_tree: 'dsi',
  openat: 'dsii',
  openat2: 'dsbn',
  pivot_root: 'ss',
  prctl: 'iiiii',
  prlimit64: 'iib',
  rt_sigaction: 'ibii',
  rt_sigprocmask: 'ibii',
  setdomainname: 'bn',
  setgroups: 'ib',
  sethostname: 'bn',
  setns: 'di',
  setresgid: 'iii',
  setresuid: 'iii',
  setsid: '',
  fsetxattr: 'dsbni',
  socket: 'iii',
  setsockopt: 'diibn',
  bind: 'dbn',
  listen: 'di',
  symlinkat: 'sds',
  umask: 'i',
  umount2: 'si',
  unshare: 'i',
  write: 'dbn',
  await_ids: '',
  expect_alive: '',
  drop_bounding: 'ii',
  install_filter: 'ibn',
  attach_device_program: 'dd',
  landlock_add_path: 'ddi',
  send_fd: 'dd',
  netlink: 'dbn',
  read_head: 'd',
  overlay_lowers: 'ddv',
  exec: 'vvv',
} as const;

export type StepKind = keyof typeof stepKinds;

/** A descriptor that will be known when the plan runs. */
export interface Slot {
  readonly slot: number;
  readonly name: string;
}
/** AT_FDCWD: paths start at the working directory. */
export const cwd = { slot: -100, name: 'AT_FDCWD' } as const satisfies Slot;

type Argument<Letter extends string> = Letter extends 'i'
  ? number
  : Letter extends 'd'
    ? Slot
    : Letter extends 's'
      ? string | null
      : Letter extends 'b'
        ? Uint8Array | null
        : readonly string[];

/** The arguments that a signature takes. */
export type Arguments<Signature extends string> = Signature extends `${infer Letter}${infer Rest}`
  ? Letter extends 'n'
    ? Arguments<Rest>
    : [Argument<Letter>, ...Arguments<Rest>]
  : [];

export type Section = 'parent' | 'join' | 'child';

export interface Step {
  readonly kind: StepKind;
  readonly args: readonly (number | Slot | string | null | Uint8Array | readonly string[])[];
  /** What is being done, for errors and `explain()`: 'mount /proc'. */
  readonly label: string;
  readonly path: string | undefined;
  readonly out: Slot | undefined;
  readonly tolerate: readonly number[];
  /** After success, or after a tolerated errno, this many steps are passed over. */
  skipIfDone: number;
  skipIfTolerated: number;
}
