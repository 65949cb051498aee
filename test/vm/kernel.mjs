// Debian's own kernel packages, fetched and unpacked without being installed, and an initramfs with what the tests need of them.

import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
export const cache = fileURLToPath(new URL('../../build-vm/', import.meta.url));

/** Each depends on the newest package of its kernel: bookworm has 6.1, bookworm-updates 6.12. */
const metaPackages = { 6.1: 'linux-image-amd64', 6.12: 'linux-image-6.12-amd64' };
export const kernelNames = Object.keys(metaPackages);
/** What tests can do on the one and not on the other. */
export const abilitiesOf = { 6.1: 'landlock:2', 6.12: 'landlock:6' };

/** Only one of AppArmor and SELinux can be on (LSM_FLAG_EXCLUSIVE). Debian's own choice is AppArmor. */
export const parametersFor = (lane) => (lane.split(',').includes('selinux') ? 'security=selinux' : '');

/** In this order, each after what it depends on. Debian builds some of them in, or not at all: those are passed over. */
const modules = [
  // To reach the root file system and the disks. ext4 asks for crc32c by a name that only modprobe would find.
  ...['virtio_pci', '9pnet_virtio', '9p', 'overlay', 'virtio_blk', 'crc32c_generic', 'ext4'],
  // What tests mount, limit and connect: nothing in the machine loads modules on demand.
  ...['fuse', 'brd', 'zram', 'bfq', 'veth', 'bridge', 'dummy', 'ifb', 'tun', 'sch_netem', 'sch_tbf', 'sch_htb', 'sch_ingress', 'cls_u32', 'cls_matchall'],
  ...['act_mirred', 'tcp_diag', 'udp_diag', 'unix_diag'],
  ...['nf_tables', 'nft_chain_nat', 'nft_nat', 'nft_masq', 'nft_redir', 'nft_ct', 'nft_socket', 'nft_tproxy', 'nft_reject_inet', 'nft_fib_inet', 'nft_limit'],
];

export function run(command, args, options = {}) {
  const { status, error, stdout, stderr } = spawnSync(command, args, { maxBuffer: 2 ** 28, ...options });
  if (status === 0) return stdout;
  throw new Error(`${command} ${args.join(' ')} failed: ${error?.message ?? stderr}`);
}

/** Paths of the kernel and the initramfs, made if what the archive has is not in the cache. */
export function prepareKernel(name) {
  const image = imagePackage(metaPackages[name]);
  const unpacked = join(cache, image.replaceAll(/[^\w.+-]/g, '_'));
  if (!existsSync(unpacked)) unpack(image, unpacked);
  const boot = join(unpacked, 'boot');
  const kernel = readdirSync(boot).find((file) => file.startsWith('vmlinuz-'));
  const release = kernel.slice('vmlinuz-'.length);
  return { kernel: join(boot, kernel), release, initramfs: makeInitramfs(unpacked, release) };
}

/** 'linux-image-6.1.0-56-amd64=6.1.192-2'. */
function imagePackage(metaPackage) {
  const shown = run('apt-cache', ['show', '--no-all-versions', metaPackage], { encoding: 'utf8' });
  const [, name, version] = /^Depends:.*?(linux-image-\S+) \(= ([^)]+)\)/m.exec(shown) ?? [];
  if (!name) throw new Error(`apt knows no ${metaPackage}: is apt-get update needed?\n${shown}`);
  return `${name}=${version}`;
}

function unpack(image, target) {
  console.error(`vm: fetching ${image}`);
  const partial = `${target}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  run('apt-get', ['download', '-qq', image], { cwd: partial });
  const [deb] = readdirSync(partial).filter((file) => file.endsWith('.deb'));
  run('dpkg-deb', ['-x', join(partial, deb), partial]);
  rmSync(join(partial, deb));
  renameSync(partial, target);
}

function makeInitramfs(unpacked, release) {
  const image = join(unpacked, 'initramfs');
  const tree = join(unpacked, 'initramfs.tree');
  rmSync(tree, { recursive: true, force: true });
  for (const directory of ['bin', 'modules', 'dev', 'proc', 'sys', 'lower', 'upper', 'root']) mkdirSync(join(tree, directory), { recursive: true });
  copyFileSync(busybox(), join(tree, 'bin/busybox'));
  copyFileSync(here('init.sh'), join(tree, 'init'));
  chmodSync(join(tree, 'init'), 0o755);
  const order = [];
  const files = moduleFiles(join(unpacked, 'lib/modules', release, 'kernel'));
  const place = (name) => {
    const file = files.get(name);
    if (order.includes(name) || file === undefined) return;
    const contents = file.endsWith('.xz') ? run('xz', ['-dc', file]) : readFileSync(file);
    for (const dependency of dependencies(contents)) place(dependency);
    writeFileSync(join(tree, 'modules', `${name}.ko`), contents);
    order.push(name);
  };
  for (const name of modules) place(name);
  writeFileSync(join(tree, 'modules/order'), order.map((name) => `${name}\n`).join(''));
  const list = run(busybox(), ['find', '.'], { cwd: tree });
  writeFileSync(image, run(busybox(), ['cpio', '-o', '-H', 'newc'], { cwd: tree, input: list }));
  rmSync(tree, { recursive: true });
  return image;
}

function busybox() {
  const path = ['/bin/busybox', '/usr/bin/busybox'].find(existsSync);
  if (path === undefined) throw new Error('busybox is missing: apt-get install busybox-static');
  return path;
}

function moduleFiles(directory) {
  const names = readdirSync(directory, { recursive: true }).filter((name) => /\.ko(\.xz)?$/.test(name));
  return new Map(names.map((name) => [moduleName(name.replace(/^.*\//, '').replace(/\.ko(\.xz)?$/, '')), join(directory, name)]));
}

/** Files are named with '-' or '_' as their authors liked; the kernel knows '_' only. */
const moduleName = (name) => name.replaceAll('-', '_');

/** Of the module's .modinfo section, modinfo(8). */
function dependencies(contents) {
  const at = contents.indexOf('\0depends=');
  const text = contents.toString('latin1', at + '\0depends='.length, contents.indexOf(0, at + 1));
  return at < 0 ? [] : text.split(',').filter(Boolean).map(moduleName);
}
