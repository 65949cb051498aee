/** What this machine, and the user that we are, can do: each tried, not guessed. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { availableParallelism, hostname, userInfo } from 'node:os';
import { delimiter, join } from 'node:path';
import { fixture } from './fixtures.js';
import { askHostNow } from './host.js';
import { packageSuite, postgresqlDirectory } from './installed.js';
import type { Question } from './questions.js';

/** Why it is not to be had here, or undefined. */
type Answer = string | undefined;

const [uid, gid] = [process.geteuid?.() ?? -1, process.getegid?.() ?? -1];

function firstFailure(questions: readonly Question[]): Answer {
  const failed = askHostNow(questions).find(({ errno }) => errno);
  return failed && `${failed.verb} is ${failed.errno}`;
}

/** In namespaces of these kinds, as an ordinary user in a user namespace too. */
function inNew(kinds: string, questions: readonly Question[] = []): readonly Question[] {
  const entry: readonly Question[] = [
    ['unshare', `user,${kinds}`],
    ['map-self', uid, gid],
  ];
  return [...(uid === 0 ? [['unshare', kinds] as const] : entry), ...questions];
}

const recursivelyPrivate = 0x44000;
const overlay: readonly Question[] = inNew('mnt', [
  ['mount', 'none', '/', 'none', recursivelyPrivate],
  ['mount', 'none', '/tmp', 'tmpfs', 0],
  ...['/tmp/lower', '/tmp/upper', '/tmp/work', '/tmp/merged'].map((path) => ['mkdir', path] as const),
  ['mount', 'none', '/tmp/merged', 'overlay', 0, 'lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work'],
]);

interface SubordinateIds {
  readonly first: number;
  readonly count: number;
}

function subordinateIds(file: string): SubordinateIds | undefined {
  const { username } = userInfo();
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const fields = text
    .split('\n')
    .map((line) => line.split(':'))
    .find(([owner]) => owner === username || owner === String(uid));
  return fields && { first: Number(fields[1]), count: Number(fields[2]) };
}

function program(name: string): Answer {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const found = folders.some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  return found ? undefined : `${name} is not in PATH`;
}

// Maps a process that waits in a new user namespace: its pid is in the answer to `status`.
const mapping = `
"$1" unshare user -- status -- sleep | {
  read -r unshared && read -r status && read -r ready
  pid=\${status#*'"pid":'} && pid=\${pid%%,*}
  newuidmap "$pid" 0 "$2" 1 1 "$4" 1 && newgidmap "$pid" 0 "$3" 1 1 "$5" 1
  code=$?
  kill -9 "$pid"
  exit $code
}`;

function newuidmap(): Answer {
  const [uids, gids] = [subordinateIds('/etc/subuid'), subordinateIds('/etc/subgid')];
  const none = program('newuidmap') ?? program('newgidmap');
  if (none) return none;
  if (!uids || !gids) return 'no range in /etc/subuid or /etc/subgid';
  const words = [fixture('probe'), uid, gid, uids.first, gids.first].map(String);
  const { status, stderr } = spawnSync('sh', ['-c', mapping, 'sh', ...words], { encoding: 'utf8' });
  return status === 0 ? undefined : stderr.trim();
}

function cgroupMounts() {
  return askHostNow(['mounts'])[0].mounts.filter(({ fsType }) => fsType === 'cgroup' || fsType === 'cgroup2');
}

function pureV2(): Answer {
  const root = cgroupMounts().find(({ mountPoint }) => mountPoint === '/sys/fs/cgroup');
  return root?.fsType === 'cgroup2' ? undefined : 'no cgroup2 is mounted on /sys/fs/cgroup';
}

function v1(): Answer {
  return cgroupMounts().some(({ fsType }) => fsType === 'cgroup') ? undefined : 'no cgroup v1 hierarchy is mounted';
}

/** v2's name of a controller is the one that counts. */
const namesOnV1: Readonly<Record<string, string>> = { io: 'blkio' };

/** The folders where our own group of each hierarchy is, if it has that controller. */
function homesOf(controller: string): string[] {
  const memberships = askHostNow(['cgroup'])[0].cgroup;
  const onV1 = namesOnV1[controller] ?? controller;
  return cgroupMounts().flatMap(({ fsType, mountPoint, superOptions }) => {
    const isV2 = fsType === 'cgroup2';
    const membership = memberships.find(({ controllers }) =>
      isV2 ? controllers === '' : controllers.split(',').includes(onV1) && superOptions.includes(onV1),
    );
    if (!membership) return [];
    const home = join(mountPoint, membership.path);
    const list = join(home, 'cgroup.controllers');
    if (isV2 && !(existsSync(list) && readFileSync(list, 'utf8').split(/\s+/).includes(controller))) return [];
    return [home];
  });
}

/** That a group with this controller can be made below our own. */
function controller(name: string): Answer {
  const [home] = homesOf(name);
  return home === undefined ? 'no hierarchy offers it' : groupBelow(home);
}

function groupBelow(home: string): Answer {
  const trial = join(home, `cloister-ability-${process.pid}`);
  try {
    const subtree = join(home, 'cgroup.subtree_control');
    if (existsSync(subtree)) accessSync(subtree, constants.W_OK);
    mkdirSync(trial);
    rmdirSync(trial);
    return undefined;
  } catch (error) {
    return String(error);
  }
}

/** Where groups are v2's, a program decides about devices: bpf(2), and BPF_PROG_ATTACH of CGROUP_DEVICE wants CAP_NET_ADMIN. */
function deviceRules(): Answer {
  if (controller('devices') === undefined) return undefined;
  return capability('CAP_SYS_ADMIN') ?? capability('CAP_NET_ADMIN') ?? (homeOfV2() ? undefined : 'neither v1 nor v2 is mounted');
}

function homeOfV2(): string | undefined {
  const mount = cgroupMounts().find(({ fsType }) => fsType === 'cgroup2');
  const membership = askHostNow(['cgroup'])[0].cgroup.find(({ controllers, hierarchy }) => hierarchy === 0 && controllers === '');
  return mount && membership && join(mount.mountPoint, membership.path);
}

function v2Group(): Answer {
  const home = homeOfV2();
  return home === undefined ? 'no cgroup2 is mounted' : groupBelow(home);
}

function hugePages(): Answer {
  const free = /^HugePages_Free:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? '0';
  return Number(free) > 1 ? undefined : `${free} of them are free`;
}

function scratchDisk(): Answer {
  const named = process.env['CLOISTER_SCRATCH_DISK'];
  if (named) return firstFailure([['open', named, 'rw']]);
  if (uid !== 0) return 'CLOISTER_SCRATCH_DISK names none';
  const { status, stderr, error } = spawnSync('losetup', ['--find'], { encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

/** A hierarchy of v1 for one of its controllers that is in none yet. */
function v1Mount(name: string): Answer {
  if (uid !== 0) return `the user id is ${uid}`;
  const mounts: readonly Question[] = [
    ['mount', 'none', '/', 'none', recursivelyPrivate],
    ['mount', 'none', '/tmp', 'tmpfs', 0],
    ['mkdir', '/tmp/trial'],
    ['mount', 'none', '/tmp/trial', 'cgroup', 0, name],
  ];
  return firstFailure(inNew('mnt', mounts));
}

const capabilityNames =
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'.split(
    ' ',
  );

function capability(name: string): Answer {
  const bit = capabilityNames.indexOf(name.replace(/^CAP_/, ''));
  if (bit < 0) throw new Error(`no capability is called ${name}`);
  const effective = BigInt(`0x${askHostNow(['capget'])[0].effective ?? '0'}`);
  return (effective >> BigInt(bit)) & 1n ? undefined : 'not among the effective ones';
}

function landlock(atLeast: number): Answer {
  const [{ errno, result }] = askHostNow([['syscall', 'landlock_create_ruleset', 0, 0, 1]]);
  if (errno) return `landlock_create_ruleset is ${errno}`;
  return result >= atLeast ? undefined : `its ABI here is ${result}`;
}

/** The module sch_netem, which delays and loses packets. */
function netem(): Answer {
  if (uid !== 0) return `the user id is ${uid}`;
  const { status, stderr, error } = spawnSync('unshare', ['--net', 'tc', 'qdisc', 'add', 'dev', 'lo', 'root', 'netem', 'delay', '1ms'], { encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

/** A profile of the tests' own (test/fixtures/apparmor), which root has loaded before. */
function apparmor(): Answer {
  const enabled = '/sys/module/apparmor/parameters/enabled';
  if (!existsSync(enabled) || readFileSync(enabled, 'utf8').trim() !== 'Y') return 'AppArmor is off';
  const profiles = '/sys/kernel/security/apparmor/policy/profiles';
  const loaded = existsSync(profiles) && readdirSync(profiles).some((name) => /^cloister-test\.\d+$/.test(name));
  return loaded ? undefined : 'the profile cloister-test is not loaded';
}

/** With the policy that the tests have for it: test/vm/selinux.cil. */
function selinux(): Answer {
  if (!/\tselinuxfs$/m.test(readFileSync('/proc/filesystems', 'utf8'))) return 'SELinux is off';
  const context = readFileSync('/proc/self/attr/current', 'utf8');
  return context.startsWith('cloister_u:') ? undefined : `the policy is another: ${context}`;
}

const plain = {
  root: () => (uid === 0 ? undefined : `the user id is ${uid}`),
  unprivileged: () => (uid === 0 ? 'this is root' : undefined),
  'user-namespaces': () =>
    firstFailure([
      ['unshare', 'user'],
      ['map-self', uid, gid],
      ['unshare', 'uts'],
      ['sethostname', 'ability'],
    ]),
  'time-namespaces': () => firstFailure(inNew('time')),
  /** A range of ids of this user's own; that it can be used is `newuidmap`. */
  subuid: () => (subordinateIds('/etc/subuid') && subordinateIds('/etc/subgid') ? undefined : 'no range in /etc/subuid or /etc/subgid'),
  newuidmap,
  python3: () => (spawnSync('python3', ['-c', '']).status === 0 ? undefined : 'python3 does not run'),
  /** A server of PostgreSQL, where distributions put it. */
  postgresql: () => (postgresqlDirectory() === undefined ? 'there is no /usr/lib/postgresql/*/bin/initdb' : undefined),
  /** Packages with tests: .ci/run says which. */
  'package-suite': () => (packageSuite() === undefined ? 'CLOISTER_PACKAGE_SUITE names no directory' : undefined),
  'cgroup-v1': v1,
  /** The pure layout: cgroup2 itself is at /sys/fs/cgroup. */
  'cgroup-v2': pureV2,
  /** A group of v2 can be made below our own, whatever controllers it has. */
  'v2-group': v2Group,
  'device-rules': deviceRules,
  'huge-pages': hugePages,
  /** A block device that may be written over: that of CLOISTER_SCRATCH_DISK, or a loop device that a test makes. */
  'scratch-disk': scratchDisk,
  overlay: () => firstFailure(overlay),
  fuse: () => firstFailure([['open', '/dev/fuse', 'rw']]),
  aufs: () => (/\taufs$/m.test(readFileSync('/proc/filesystems', 'utf8')) ? undefined : 'the kernel has no aufs'),
  'seccomp-notify': () => firstFailure([['syscall', 'seccomp', 3, 0, 's:......']]),
  ipv6: () => {
    const [{ ipv6 }] = askHostNow(['ping-lo']);
    return ipv6 ? `::1 is ${ipv6}` : undefined;
  },
  pressure: () => firstFailure([['read', '/proc/pressure/memory']]),
  /** A root inside a root is a third overlay where / is one itself: FILESYSTEM_MAX_STACK_DEPTH is 2. Nor are ids mapped on one. */
  'plain-root': () =>
    askHostNow(['mounts'])[0].mounts.some(({ mountPoint, fsType }) => mountPoint === '/' && fsType === 'overlay') ? '/ is an overlay itself' : undefined,
  netem,
  /** For what is said where it is missing. */
  'no-netem': () => (netem() === undefined ? 'it is here' : undefined),
  /** The name of this host is one that leads somewhere: gethostname(2), getaddrinfo(3). */
  'own-name': () => {
    if (!/^[a-z0-9.-]+$/.test(hostname())) return `${hostname()} is no name of a host`;
    const { status } = spawnSync(process.execPath, ['-e', "require('node:dns').lookup(require('node:os').hostname(), (error) => process.exit(error ? 1 : 0))"]);
    return status === 0 ? undefined : `${hostname()} leads nowhere`;
  },
  /** A machine that has nothing else to do: only a lane's name says that. */
  'steady-rates': () => ((process.env['CLOISTER_LANE'] ?? '').split(',').includes('steady-rates') ? undefined : 'no lane says so'),
  apparmor,
  'no-apparmor': () => (apparmor() === 'AppArmor is off' ? undefined : 'it is on'),
  selinux,
  'no-selinux': () => (selinux() === 'SELinux is off' ? undefined : 'it is on'),
  'two-cpus': () => (availableParallelism() > 1 ? undefined : 'only one CPU is ours'),
} satisfies Record<string, () => Answer>;

const families = {
  program,
  controller,
  capability,
  'v1-mount': v1Mount,
  landlock: (abi: string) => landlock(Number(abi)),
} satisfies Record<string, (name: string) => Answer>;

export type Ability =
  | keyof typeof plain
  | `program:${string}`
  /** By v2's name. */
  | `controller:${string}`
  | `v1-mount:${string}`
  | `capability:CAP_${string}`
  /** At least this ABI. */
  | `landlock:${number}`;

function probeFor(name: string): () => Answer {
  if (Object.hasOwn(plain, name)) return plain[name as keyof typeof plain];
  const [family = '', member] = name.split(':');
  if (!Object.hasOwn(families, family) || !member) throw new Error(`no ability is called '${name}'`);
  return () => families[family as keyof typeof families](member);
}

const known = new Map<string, Answer>();

/** Why this ability is missing, or undefined; tried once. */
export function whyMissing(ability: Ability): string | undefined {
  const probe = probeFor(ability);
  if (!known.has(ability)) known.set(ability, probe());
  return known.get(ability);
}

/** Throws on a name that is none. */
export function assertAbility(name: string): asserts name is Ability {
  probeFor(name);
}
