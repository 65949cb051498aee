// One virtual machine, from start to end: its files, its processor, its time.

import { spawn, spawnSync } from 'node:child_process';
import { closeSync, constants, copyFileSync, mkdirSync, openSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './kernel.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/**
 * 'kvm' where the processor can be had, else 'tcg', which is some ten times slower. That /dev/kvm opens tells nothing of a
 * machine that is a virtual one itself, nor that the firmware runs: a kernel has to have come as far as to miss its root.
 */
export function accelerator({ kernel }) {
  const forced = process.env.CLOISTER_VM_ACCEL;
  if (forced) return forced;
  try {
    closeSync(openSync('/dev/kvm', constants.O_RDWR));
  } catch {
    return 'tcg';
  }
  const words = [...processor('kvm'), '-m', '512', ...bare, '-kernel', kernel, '-append', 'quiet panic=-1'];
  return spawnSync('qemu-system-x86_64', words, { timeout: 15_000 }).status === 0 ? 'kvm' : 'tcg';
}

// The kernel rewrites its own code while it runs (jump labels: the first cpu.max switches some), which translated code of another
// emulated processor does not see in time: with a thread each, the machine now and then executes half an instruction, and panics.
const processor = (accel) => ['-accel', accel === 'tcg' ? 'tcg,thread=single' : accel, '-cpu', accel === 'kvm' ? 'host' : 'max', '-smp', '2'];
const bare = ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'];

/** Runs a job in it. Resolves with how it ended: 'off', 'timeout', or what the emulator said. */
export async function boot({ kernel, initramfs }, directory, job, { accel, seconds, parameters }) {
  rmSync(directory, { recursive: true, force: true });
  const share = join(directory, 'share');
  mkdirSync(share, { recursive: true });
  // Both users of the machine write their reports there.
  spawnSync('chmod', ['1777', share]);
  copyFileSync(here('lanes.sh'), join(share, 'lanes.sh'));
  const lines = Object.entries(job).map(([name, value]) => `${name}=${quote(String(value))}\n`);
  writeFileSync(join(share, 'job'), lines.join(''));
  const disk = (name, bytes) => {
    const path = join(directory, name);
    writeFileSync(path, '');
    truncateSync(path, bytes);
    return path;
  };
  const temporary = disk('tmp.img', 4 * 2 ** 30);
  run('/usr/sbin/mkfs.ext4', ['-q', '-F', '-O', '^has_journal', '-E', 'lazy_itable_init=1', temporary]);
  const scratch = disk('scratch.img', 2 ** 30);
  const shared = (tag, path, more) => [
    '-fsdev',
    `local,id=${tag},path=${path},security_model=none,${more}`,
    '-device',
    `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`,
  ];
  const drive = (path, cache, index) => [
    ...['-drive', `file=${path},format=raw,if=none,id=disk${index},cache=${cache}`],
    ...['-device', `virtio-blk-pci,drive=disk${index}`],
  ];
  const words = [
    ...[...processor(accel), '-m', '3072', ...bare, '-serial', `file:${join(directory, 'console')}`],
    ...['-kernel', kernel, '-initrd', initramfs],
    ...['-append', `console=ttyS0 quiet panic=-1 oops=panic psi=1 hugepages=8 rdinit=/init ${parameters}`],
    ...shared('host', '/', 'readonly=on,multidevs=remap'),
    ...shared('share', share, 'multidevs=remap'),
    ...drive(temporary, 'unsafe', 0),
    ...drive(scratch, 'none', 1),
  ];
  const machine = spawn('qemu-system-x86_64', words, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  machine.stderr.on('data', (chunk) => {
    said += chunk;
  });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    machine.kill('SIGKILL');
  }, seconds * 1000);
  const code = await new Promise((resolve) => {
    machine.on('error', (error) => {
      said += error.message;
      resolve(-1);
    });
    machine.on('close', resolve);
  });
  clearTimeout(timer);
  for (const path of [temporary, scratch]) rmSync(path, { force: true });
  return late ? 'timeout' : code === 0 ? 'off' : said;
}
