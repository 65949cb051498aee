/** A host with cgroup v2 alone, as most are: a mount namespace of its own where it is mounted so, and a group to be given away. */
import { spawnSync } from 'node:child_process';
import { repository } from './fixtures.js';

const nobody = 65534;

// What a test is to find at the usual place; it knows of no other mounts then.
const pureV2 = `
  if [ ! -e /sys/fs/cgroup/cgroup.procs ]; then
    umount -R /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
  fi
  # The topmost group of all, which alone has no type, hands controllers on whoever is in it. In a container: below where we are.
  home=/sys/fs/cgroup
  [ ! -e $home/cgroup.type ] || home=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
  D=\${home%/}/cloister-test-delegation-$$
  mkdir -p "$D/other"
  give() { for path in "$@"; do chown ${nobody}:${nobody} "$path" "$path/cgroup.procs" "$path/cgroup.subtree_control" "$path/cgroup.threads"; done; }
  clean() { find "$D" -depth -type d -exec rmdir {} + ; }
  trap clean EXIT
`;

export interface V2Options {
  /** Shell: \`$D\` is a new group of root's, \`give $D\` makes it the user's. */
  readonly setup?: string;
  /** The group that the program is in; below \`$D\`. */
  readonly at?: string;
  /** Shell: what becomes of the mounts that the program sees, when it is in its group. */
  readonly mounts?: string;
  /** The program's user; default: nobody. */
  readonly uid?: number;
}

/** What a snippet that may use \`cloister\` prints, run as another user in such a group. */
export function onPureV2(script: string, { setup = '', at = '$D', mounts = '', uid = nobody }: V2Options = {}): string {
  const enter = `echo $$ >"$1/cgroup.procs"; exec unshare --mount --propagation private sh -ec "$2" "$3" "$4"`;
  const execute = `${mounts}
    exec setpriv --reuid ${uid} --regid ${uid} --clear-groups env HOME=/tmp "$0" --input-type=module --eval "$1"`;
  const run = `${setup}\n set +e\n sh -ec "$2" sh "${at}" "$3" "$0" "$1"`;
  const words = ['--mount', '--propagation', 'private', 'sh', '-ec', pureV2 + run, process.execPath, script, enter, execute];
  const { status, stdout, stderr } = spawnSync('unshare', words, { encoding: 'utf8', cwd: repository });
  if (status !== 0 || stderr !== '') throw new Error(`it ended with ${status}: ${stderr}\n${stdout}`);
  return stdout.replaceAll(/cloister-test-delegation-\d+/g, 'GROUP');
}
