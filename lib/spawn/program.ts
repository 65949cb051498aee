// The last steps before the program runs: its streams, its directory, its limits, execve.

import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import * as structs from '../plan/structs.js';
import type { UserSetting } from './privilege-settings.js';
import type { Settings } from './settings.js';

/**
 * A name inside may be a link to a descriptor (/proc/self/fd/9), and lead out of the root (CVE-2024-21626): such links are refused,
 * and no descriptor but the program's own is open any more.
 */
export function enterDirectory(plan: PlanBuilder, path: string): void {
  plan.label('enter the working directory', path);
  const directory = plan.open('working directory', 'openat2', [cwd, path, structs.openHow(k.O_PATH | k.O_DIRECTORY | k.O_CLOEXEC, k.RESOLVE_NO_MAGICLINKS)]);
  plan.add('fchdir', [directory]);
}

export function nameHost(plan: PlanBuilder, { hostname, domainname, namespaces }: Settings): void {
  if (namespaces.uts !== 'new') return;
  plan.label('set the host name').add('sethostname', [Buffer.from(hostname ?? 'cloister')]);
  if (domainname !== undefined) plan.label('set the domain name').add('setdomainname', [Buffer.from(domainname)]);
}

export function writeSysctls(plan: PlanBuilder, root: Slot, sysctls: Settings['sysctl']): void {
  const file = sysctls.length > 0 ? plan.slot('sysctl') : undefined;
  for (const [path, value] of sysctls) {
    plan.label('set a sysctl', `/proc/sys/${path}`);
    const how = structs.openHow(k.O_WRONLY | k.O_CLOEXEC, k.RESOLVE_IN_ROOT | k.RESOLVE_NO_SYMLINKS);
    plan.add('openat2', [root, `proc/sys/${path}`, how], { out: file });
    plan.add('write', [file as Slot, Buffer.from(value)]);
    plan.release(file as Slot);
  }
}

export function limit(plan: PlanBuilder, { rlimits, umask }: Settings): void {
  for (const { number, name, soft, hard } of rlimits) {
    plan.label('set a resource limit', `RLIMIT_${name.toUpperCase()}`).add('prlimit64', [0, number, structs.resourceLimit(soft, hard)]);
  }
  plan.label('set the umask').add('umask', [umask]);
}

export function connectStreams(
  plan: PlanBuilder,
  settings: Settings,
  stdio: readonly Slot[],
  terminal: Slot | undefined,
  user: UserSetting,
  init: { program: Slot; status: Slot; socket: Slot } | undefined,
  calls: Slot | undefined,
  labels: Slot | undefined,
): void {
  if (terminal) {
    // So that the program can open its terminal by name once more.
    plan.label('connect the terminal').add('fchownat', [terminal, '', user.uid, user.gid, k.AT_EMPTY_PATH]);
  }
  plan.label('connect the streams');
  for (const index of settings.stdio.keys()) plan.add('dup3', [terminal && index < 3 ? terminal : (stdio[index] as Slot), index, 0]);
  let next = settings.stdio.length;
  if (init) {
    plan.add('dup3', [init.status, next++, 0]);
    plan.add('dup3', [init.socket, next++, 0]);
    if (settings.selinux?.process !== undefined) plan.add('dup3', [labels as Slot, next++, 0]);
    plan.add('dup3', [init.program, next, k.O_CLOEXEC], { out: init.program });
    next++;
  }
  // A session of its own: no terminal of ours to push input into (CVE-2017-5226). With init, it is the program that has one.
  if (!init) {
    plan.label('begin a session').add('setsid', []);
    if (terminal) plan.add('ioctl_number', [terminal, k.TIOCSCTTY, 0]);
  }
  plan.label('close all other descriptors').add('dup3', [plan.reportSlot as Slot, next++, k.O_CLOEXEC]);
  if (calls) plan.add('dup3', [calls, next++, k.O_CLOEXEC], { out: calls });
  if (labels) plan.add('dup3', [labels, next++, k.O_CLOEXEC], { out: labels });
  // Really closed and not only at exec, which may be led to one of them by a link: /proc/self/fd/9 as a program or directory.
  plan.add('close_range', [next, 0xffffffff, 0]);
}

/** Where execvp(3) would look for the program. */
export function candidates({ command, env }: Settings): string[] {
  if (command.includes('/')) return [command];
  const path = env['PATH'] ?? '/bin:/usr/bin';
  return path.split(':').map((directory) => (directory === '' ? command : `${directory}/${command}`));
}

export function execute(plan: PlanBuilder, settings: Settings, init: Slot | undefined): void {
  const paths = candidates(settings);
  const argv = [settings.command, ...settings.args];
  const environment = Object.entries(settings.env).map(([name, value]) => `${name}=${value}`);
  plan.label('execute the program', settings.command);
  if (!init) {
    plan.add('exec', [paths, argv, environment]);
    return;
  }
  plan.label('execute init');
  const count = settings.stdio.length;
  const words = [
    'cloister-init',
    String(count),
    String(count + 1),
    settings.tty ? '1' : '0',
    settings.selinux?.process ?? '',
    String(paths.length),
    ...paths,
    ...argv,
  ];
  plan.add('execveat', [init, '', words, environment, k.AT_EMPTY_PATH]);
}
