import { accessSync, constants } from 'node:fs';
import { caller } from '../host/caller.js';
import { checked, native } from '../native.js';
import type { Ids } from '../security/id-map.js';
import type { InitPipes } from './init-channel.js';
import type { Settings } from './settings.js';

// Our own init: which sandboxes have it though nobody has asked, and what it is given.

/**
 * Until exec the child is this process's node: /proc/self/exe, as a program or on its first line, leads to the host's file, and who
 * may write to that could change it from inside (CVE-2019-5736). Then the program is started by our init, from a sealed memfd.
 */
export function needsInit({ namespaces }: Settings, ids: Ids | undefined): boolean {
  if (namespaces.pid !== 'new') return false;
  const { uid } = caller();
  const isCaller = ids === undefined || ids.map.uids.some(({ outside: from, count }) => uid >= from && uid < from + count);
  return isCaller && ownProgramIsWritable();
}

let programIsWritable: boolean | undefined;
function ownProgramIsWritable(): boolean {
  try {
    if (programIsWritable === undefined) accessSync(process.execPath, constants.W_OK);
    programIsWritable ??= true;
  } catch {
    programIsWritable = false;
  }
  return programIsWritable;
}

let initProgram: number | undefined;

/** Descriptors of the child's, from `least` on, and ours. */
export function openInit(least: number): { child: { program: number; status: number; pidfdSocket: number }; ours: InitPipes } {
  initProgram ??= checked(native().initProgram(), 'memfd_create', 'make init');
  const [status, statusWrite] = checked(native().pipe(), 'pipe2', 'make init') as [number, number];
  const [ours, theirs] = checked(native().socketPair(true), 'socketpair', 'make init') as [number, number];
  const up = (fd: number): number => {
    const higher = checked(native().duplicate(fd, least), 'fcntl', 'make init');
    native().close(fd);
    return higher;
  };
  return {
    child: { program: checked(native().duplicate(initProgram, least), 'fcntl', 'make init'), status: up(statusWrite), pidfdSocket: up(theirs) },
    ours: { status, pidfdSocket: ours },
  };
}
