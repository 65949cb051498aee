import { CgroupError } from '../errors.js';

/** What Node's fs was refused, as ours. */
export function cgroupError(error: unknown, step: string, path: string, what?: string, hint?: string): CgroupError {
  const { errno = -5, syscall, code } = error as NodeJS.ErrnoException;
  const because = what ?? (code === 'ENOENT' || code === 'ENODEV' ? 'the group has been removed' : undefined);
  return CgroupError.ofErrno('ERR_CLOISTER_CGROUP', errno, { step, path, syscall, hint, ...(because === undefined ? {} : { what: because }) });
}
