import { optionError } from '../../errors.js';
import type { SeccompNotify } from '../types.js';
import { isSyscall } from './syscalls.js';

export type Handlers = ReadonlyMap<string, SeccompNotify[string]>;

/**
 * Calls that starting a program makes under the filter, and those that an ending or a signal handler cannot do without: nobody may
 * be asked about them.
 */
const never = new Set(['execve', 'execveat', 'exit', 'exit_group', 'rt_sigreturn', 'sendmsg', 'seccomp']);
const neverGaining = new Set(['capset', 'prctl', 'rt_sigprocmask']);

/** Throws a TypeError that names the option. `gains`: without no_new_privs the start goes on longer. */
export function handlersOf(value: unknown, option: string, gains: boolean): Handlers {
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw optionError(option, 'an object: names of system calls, and functions that decide them', value);
  return new Map(
    Object.entries(value).map(([name, handler]) => {
      const at = `${option}.${name}`;
      if (!isSyscall(name)) throw optionError(at, 'nothing: no system call has that name', handler);
      if (never.has(name) || (gains && neverGaining.has(name))) throw optionError(at, 'nothing: starting or ending a program makes that call itself', handler);
      if (typeof handler !== 'function') throw optionError(at, 'a function that decides', handler);
      return [name, handler as SeccompNotify[string]];
    }),
  );
}
