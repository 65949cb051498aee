import { readFileSync, statSync } from 'node:fs';
import { threadId } from 'node:worker_threads';

// The name of a group tells who made it: a process that was killed leaves its groups behind, and whoever comes next can see from
// the name alone that nobody needs them any more.

/**
 * cloister-<pid namespace>-<pid>-<start time>-<thread>.<count>: each worker has a module, and a count, of its own. A detached sandbox
 * outlives its host: its group goes when it is empty.
 */
const form = /^cloister(-detached)?-(.*)$/;
const markForm = /^([0-9a-z]+)-(\d+)-([0-9a-z]+)-\d+\.[0-9a-z]+$/;

let prefix: string | undefined;
let count = 0;

export const ownedName = (detached = false): string => `cloister${detached ? '-detached' : ''}-${ownerMark()}`;

/** A new one each time. Directories on disk have it in their names, too. */
export function ownerMark(): string {
  prefix ??= `${pidNamespace()}-${process.pid}-${startTime(process.pid)}-${threadId}`;
  return `${prefix}.${(count++).toString(36)}`;
}

/** Numbers of pids mean something only in one pid namespace. */
const pidNamespace = (): string => statSync('/proc/self/ns/pid').ino.toString(36);

/** Clock ticks after boot, field 22 of proc_pid_stat(5): a pid is used again, a pid and its start time are not. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]).toString(36);
  } catch {
    return undefined;
  }
}

export interface Orphan {
  readonly ownerPid: number;
  /** What runs in it may go on. */
  readonly detached: boolean;
}

/** undefined: not a name of ours, or its owner lives, or nobody here can tell. */
export function orphanOf(name: string): Orphan | undefined {
  const match = form.exec(name);
  const ownerPid = match ? deadOwner(match[2] as string) : undefined;
  return ownerPid === undefined ? undefined : { ownerPid, detached: match?.[1] !== undefined };
}

/** The pid that has made this mark; undefined as above. */
export function deadOwner(mark: string): number | undefined {
  const match = markForm.exec(mark);
  if (!match || match[1] !== pidNamespace()) return undefined;
  const pid = Number(match[2]);
  return isAlive(pid, match[3] as string) ? undefined : pid;
}

function isAlive(pid: number, started: string): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  // Hidden from us (proc(5), hidepid): then it is taken for alive.
  return (startTime(pid) ?? started) === started;
}
