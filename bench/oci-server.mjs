// Runs crun or runc once for each line of standard input, from Node, and writes the microseconds from spawn to 'exit'. Started by
// peers.mjs below `unshare -m`, so that the mounts that it makes are its own: the overlay root, and cgroup2 alone at
// /sys/fs/cgroup, as crun refuses the hybrid layout.
//
//   oci-server RUNTIME BUNDLE PROGRAM [DIRECTORY to bind into it]

import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { defaultMaskedPaths, defaultReadonlyPaths } from '../dist/spawn/settings.js';

const [runtime, bundle, program, bound] = process.argv.slice(2);
const mount = (...args) => execFileSync('mount', args, { stdio: ['ignore', 'ignore', 'inherit'] });
const idStart = 0x70000000;

mount('--make-rprivate', '/');
mount('-t', 'tmpfs', 'tmpfs', bundle);
for (const name of ['upper', 'work', 'rootfs', 'state']) mkdirSync(join(bundle, name));
// State and root in this private tmpfs: whatever happens, nothing is left.
mount('-t', 'overlay', 'overlay', '-o', `lowerdir=/,upperdir=${bundle}/upper,workdir=${bundle}/work`, join(bundle, 'rootfs'));
mount('-t', 'tmpfs', 'tmpfs', '/sys/fs/cgroup');
execFileSync('umount', ['-l', '/sys/fs/cgroup']);
mount('-t', 'cgroup2', 'cgroup2', '/sys/fs/cgroup');

const mappings = [{ containerID: 0, hostID: idStart, size: 65536 }];
const quiet = ['nosuid', 'noexec', 'nodev'];
writeFileSync(
  join(bundle, 'config.json'),
  JSON.stringify({
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: [program],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'HOME=/root', 'TERM=xterm', 'LANG=C.UTF-8'],
      cwd: '/',
      capabilities: { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] },
      noNewPrivileges: true,
    },
    root: { path: 'rootfs', readonly: false },
    hostname: 'bench',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: quiet },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
      { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620'] },
      { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: [...quiet, 'mode=1777', 'size=65536k'] },
      { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: quiet },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...quiet, 'ro'] },
      { destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', 'mode=1777'] },
      ...(bound ? [{ destination: bound, type: 'bind', source: bound, options: ['rbind', 'ro'] }] : []),
    ],
    linux: {
      namespaces: ['pid', 'network', 'ipc', 'uts', 'mount', 'user', 'cgroup'].map((type) => ({ type })),
      uidMappings: mappings,
      gidMappings: mappings,
      maskedPaths: defaultMaskedPaths,
      readonlyPaths: defaultReadonlyPaths,
    },
  }),
);

const log = openSync(join(bundle, 'log'), 'a');
const global = ['--root', join(bundle, 'state'), ...(runtime.endsWith('crun') ? ['--cgroup-manager=disabled'] : [])];
let count = 0;
for await (const _line of createInterface({ input: process.stdin })) {
  const begin = process.hrtime.bigint();
  const child = spawn(runtime, [...global, 'run', '--bundle', bundle, `cloister-bench-${process.pid}-${count++}`], { stdio: ['ignore', log, log] });
  const code = await new Promise((resolve, reject) => child.once('error', reject).once('exit', resolve));
  const took = Number(process.hrtime.bigint() - begin) / 1e3;
  if (code !== 0) {
    console.error(`${runtime}: ${readFileSync(join(bundle, 'log'), 'utf8').trim()}`);
    process.exit(1);
  }
  process.stdout.write(`${took}\n`);
}
