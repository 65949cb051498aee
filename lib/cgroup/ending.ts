import { existsSync } from 'node:fs';
import { readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CgroupError } from '../errors.js';
import { native } from '../native.js';
import { readOptional, words } from './hierarchies.js';

// How a group ends: everything in it killed at once, its last process waited for, its directories removed.

/** Waits until `text` of a file that tells its changes by poll(2) satisfies; false if the group is gone. */
export function untilFile(path: string, satisfies: (text: string) => boolean): Promise<boolean> {
  const fd = native().openFile(path);
  if (fd < 0)
    return fd === -2 || fd === -19
      ? Promise.resolve(false)
      : Promise.reject(CgroupError.ofErrno('ERR_CLOISTER_CGROUP', fd, { syscall: 'open', path, step: 'watch the control group' }));
  return new Promise((resolve) => {
    const look = (text: string | undefined): void => {
      if (text !== undefined && !satisfies(text)) return;
      watcher.close();
      resolve(text !== undefined);
    };
    const watcher = new (native().Watcher)(fd, true, look, true);
    look(watcher.text());
  });
}

/** No process in it, or below it. */
export async function untilEmpty(directory: string): Promise<void> {
  if (existsSync(join(directory, 'cgroup.events'))) {
    await untilFile(join(directory, 'cgroup.events'), (text) => text.includes('populated 0'));
    return;
  }
  // v1 tells nobody: each process is waited for by its pidfd.
  for (;;) {
    const pids = await processesBelow(directory);
    if (pids.length === 0) return;
    for (const pid of pids) await untilDead(pid);
  }
}

function untilDead(pid: number): Promise<void> {
  const fd = native().openProcess(pid);
  if (fd < 0) return Promise.resolve();
  return new Promise((resolve) => {
    // pidfd_open(2): readable when the process has ended.
    const watcher = new (native().Watcher)(
      fd,
      false,
      () => {
        watcher.close();
        resolve();
      },
      true,
    );
  });
}

async function processesBelow(directory: string): Promise<number[]> {
  const own = words(await readFile(join(directory, 'cgroup.procs'), 'utf8').catch(() => '')).map(Number);
  const below = await Promise.all((await childrenOf(directory)).map(processesBelow));
  return [...own, ...below.flat()];
}

async function childrenOf(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(directory, name));
}

/** Kills everything in and below it, and waits for the last one. */
export async function killAll(directory: string): Promise<void> {
  try {
    // Since 5.14: also those that are being forked just now, and frozen ones.
    await writeFile(join(directory, 'cgroup.kill'), '1');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Removed meanwhile: nobody is in it any more.
    if (code === 'ENODEV') return;
    if (code !== 'ENOENT' && code !== 'EACCES') throw error;
    if (!existsSync(directory)) return;
    await killFrozen(directory);
  }
  await untilEmpty(directory);
}

/** v1: who is frozen cannot fork, and dies when it is thawed (cgroup-v1/freezer-subsystem.rst). */
async function killFrozen(directory: string): Promise<void> {
  const freezer = join(directory, 'freezer.state');
  const freezes = existsSync(freezer);
  for (let pids = await processesBelow(directory); pids.length > 0; pids = await processesBelow(directory)) {
    if (freezes) {
      await writeFile(freezer, 'FROZEN');
      await untilFrozenV1(freezer);
      pids = await processesBelow(directory);
    }
    try {
      await killListed(directory, pids);
    } finally {
      if (freezes) await writeFile(freezer, 'THAWED');
    }
    for (const pid of pids) await untilDead(pid);
  }
}

async function killListed(directory: string, pids: readonly number[]): Promise<void> {
  const opened = pids.map((pid) => ({ pid, pidfd: native().openProcess(pid) })).filter(({ pidfd }) => pidfd >= 0);
  // What is still listed now was opened; the number of one that is not may be a stranger's by now.
  const still = new Set(await processesBelow(directory));
  for (const { pid, pidfd } of opened) {
    if (still.has(pid)) native().signalProcess(pidfd, 9);
    native().close(pidfd);
  }
}

/**
 * v1 has no event for it. Reading the state is what completes it (freezer_read, update_if_frozen in
 * kernel/cgroup/legacy_freezer.c), so it is read until it says so.
 */
export async function untilFrozenV1(file: string): Promise<void> {
  while (readOptional(file)?.trim() === 'FREEZING') await new Promise((resolve) => setImmediate(resolve));
}

/** Removes it, and groups that were made inside. They must be empty. */
export async function removeTree(directory: string): Promise<void> {
  try {
    await rmdir(directory);
  } catch (error) {
    const { code, errno = -5 } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    const children = await childrenOf(directory);
    if (code !== 'EBUSY' || children.length === 0) {
      throw CgroupError.ofErrno('ERR_CLOISTER_CGROUP', errno, {
        syscall: 'rmdir',
        path: directory,
        step: 'remove the control group',
        ...(code === 'EBUSY' ? { what: 'there are processes in it', hint: 'kill() ends them; delete() waits until they have ended.' } : {}),
      });
    }
    for (const child of children) await removeTree(child);
    await removeTree(directory);
  }
}
