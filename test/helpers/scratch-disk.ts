/** A block device that may be written over: what needs the ability 'scratch-disk'. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

export interface ScratchDisk {
  readonly path: string;
  /** 'MAJOR:MINOR' */
  readonly number: string;
}

/** That of the machine, or a loop device for one test. */
export function scratchDisk(): ScratchDisk {
  const path = process.env['CLOISTER_SCRATCH_DISK'] ?? loopDevice();
  const rdev = BigInt(statSync(path).rdev);
  // makedev(3)
  return { path, number: `${(rdev >> 8n) & 0xfffn}:${(rdev & 0xffn) | ((rdev >> 12n) & 0xfff00n)}` };
}

function loopDevice(): string {
  const directory = mkdtempSync(join(tmpdir(), 'cloister-disk-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'disk');
  writeFileSync(file, '');
  truncateSync(file, 64 * 2 ** 20);
  const device = execFileSync('losetup', ['--find', '--show', file], { encoding: 'utf8' }).trim();
  onTestFinished(() => void execFileSync('losetup', ['--detach', device]));
  return device;
}
