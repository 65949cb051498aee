import { optionError } from '../errors.js';

/** What child_process and container engines call what has another name here. */
const names: Readonly<Record<string, string>> = {
  uid: 'user: { uid }',
  gid: 'user: { gid }',
  shell: "the shell as the command: ('sh', ['-c', '…'])",
  argv0: 'the command: it is argv[0] as well',
  maxBuffer: 'outputLimit',
  memory: 'cgroup: { memory }',
  cpus: 'cgroup: { cpu }',
  cpu: 'cgroup: { cpu }',
  pids: 'cgroup: { pids }',
  limits: 'cgroup or rlimits',
  ulimits: 'rlimits',
  volumes: 'mounts',
  binds: 'mounts',
  image: 'rootfs: an Image',
  root: 'rootfs',
  workdir: 'cwd',
  entrypoint: 'the command itself',
  environment: 'env',
  caps: 'capabilities',
  capAdd: 'capabilities',
  privileged: 'capabilities',
  ports: 'network',
};

export function refuseOthersNames(options: object): void {
  for (const [name, value] of Object.entries(options)) {
    const ours = Object.hasOwn(names, name) ? names[name] : undefined;
    if (ours !== undefined) throw optionError(name, `nothing: there is no such option, but ${ours}`, value);
  }
}
