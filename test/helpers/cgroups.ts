/** Control groups for one test, gone after it; programs of the host's in them; and what of them is on this machine. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { Cgroup, type CgroupLimits } from 'cloister';
import { onTestFinished } from 'vitest';
import { fixture } from './fixtures.js';
import { Lines } from './lines.js';
import { type AnswersTo, parseAnswers, type Question, toArguments } from './questions.js';

export async function makeGroup(limits: CgroupLimits = {}, options: { name?: string; parent?: Cgroup | string } = {}): Promise<Cgroup> {
  const { name, ...rest } = options;
  const group = await Cgroup.create(name, limits, rest);
  onTestFinished(() => group[Symbol.asyncDispose]());
  return group;
}

// It waits at its first line of input, until it has been moved: nothing of the probe runs outside of the group.
const waiting = ['-c', 'read -r _ && exec "$@"', 'sh'];

async function startWaiting(group: Cgroup, questions: readonly Question[]) {
  const child = spawn('/bin/sh', [...waiting, fixture('probe'), ...toArguments(questions)], { stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  await group.add(child.pid as number);
  child.stdin.write('\n');
  return child;
}

export interface HostProbe {
  readonly pid: number;
  /** Open still: a `cat` among the questions waits for its end. */
  readonly stdin: Writable;
  readonly lines: Lines;
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/** A probe of the host's, with all that this user may do there, in this group. */
export async function startIn(group: Cgroup, questions: readonly Question[]): Promise<HostProbe> {
  const child = await startWaiting(group, questions);
  const ended = once(child, 'exit').then(([code, signal]) => ({ code, signal }));
  return { pid: child.pid as number, stdin: child.stdin, lines: new Lines(child.stdout), ended };
}

/** The answers of one that ends. */
export async function askIn<const Q extends readonly Question[]>(group: Cgroup, questions: Q): Promise<AnswersTo<Q>> {
  const child = await startWaiting(group, questions);
  child.stdin.end();
  const [printed] = await Promise.all([text(child.stdout), once(child, 'close')]);
  return parseAnswers(questions, printed, `in ${group.name}: exit code ${child.exitCode}, signal ${child.signalCode}`);
}

function mountpoints(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => / - cgroup2? /.test(line))
    .map((line) => line.split(' ')[4] as string);
}

function directoriesBelow(directory: string): string[] {
  try {
    const found = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return found.flatMap(({ name }) => [join(directory, name), ...directoriesBelow(join(directory, name))]);
  } catch {
    return [];
  }
}

/** The directories, in all hierarchies, of groups with such a name in their path. */
export function groupDirectories(name: string | RegExp): string[] {
  const fits = typeof name === 'string' ? (part: string) => part === name : (part: string) => name.test(part);
  return mountpoints()
    .flatMap(directoriesBelow)
    .filter((path) => path.split('/').some(fits));
}

/** Those that this process, or another one, has made without a name: others of this machine may run the library, too. */
export const groupsOfProcess = (pid = process.pid): string[] => groupDirectories(new RegExp(`^cloister-.*-${pid}-`));

/** The directory of the v2 group that we are in. */
export function homeOfV2(): string {
  const mount = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((line) => / - cgroup2 /.test(line))
    ?.split(' ')[4];
  const path = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1];
  if (mount === undefined || path === undefined) throw new Error('there is no v2 group');
  return join(mount, path);
}
