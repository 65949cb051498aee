/** A Node process that the host gives no namespaces: as a user namespace without the right to make more, or behind a filter. */
import { spawnSync } from 'node:child_process';
import { fixture, repository } from './fixtures.js';
import type { Ability } from './lane.js';

const dropped = ['setpriv', '--ambient-caps=-all', '--inh-caps=-all', '--bounding-set=-all'];
const limited = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"';

/** Each a command that runs another one. */
export const hosts = {
  /** As Docker's default profile refuses them: clone3 is not there, clone and unshare take no CLONE_NEWUSER; nor can anything be mounted. */
  filtered: [fixture('probe'), 'seccomp-deny', 'userns,keyctl,mount,umount2,setns,unshare', 'EPERM', '--'],
  root: ['unshare', '--user', '--map-root-user', 'sh', '-c', limited, 'sh', ...dropped],
  /** Root of a user namespace, which has every capability there. */
  'root with capabilities': ['unshare', '--user', '--map-root-user', 'sh', '-c', limited, 'sh'],
  'ordinary user': ['unshare', '--user', '--map-user=1000', '--map-group=1000', '--keep-caps', 'sh', '-c', limited, 'sh', ...dropped],
} as const satisfies Record<string, readonly string[]>;

export const hostAbilities: readonly Ability[] = ['user-namespaces', 'program:unshare', 'program:setpriv', 'landlock:6'];

/** What the script (an ES module; `cloister` is the built one) prints as JSON. `args`: its process.argv.slice(1). */
export function withoutNamespaces(host: keyof typeof hosts, script: string, args: readonly string[] = []): unknown {
  const [command, ...words] = [...hosts[host], process.execPath, '--input-type=module', '-e', script, '--', ...args];
  const { stdout, stderr, status, signal } = spawnSync(command as string, words, { cwd: repository, encoding: 'utf8' });
  try {
    return JSON.parse(stdout);
  } catch (cause) {
    throw new Error(`${host}: status ${status}, signal ${signal}: ${stdout}${stderr}`, { cause });
  }
}
