// Contexts of SELinux, of the host's policy: selinux(8), Documentation/admin-guide/LSM/SELinux.rst.

import { writeFileSync } from 'node:fs';
import { IsolationError } from '../errors.js';
import { look } from '../host/hints.js';
import type { SelinuxLabels } from './types.js';

let on: boolean | undefined;
/** Decided when the host is booted: its file system is only known where it is on (init_sel_fs), mounted or not. */
export const selinuxIsOn = (): boolean => {
  on ??= /\tselinuxfs$/m.test(look('/proc/filesystems') ?? '');
  return on;
};

/** Throws ERR_CLOISTER_LABEL where SELinux is off, or its policy knows no such context. */
export function checkLabels(labels: SelinuxLabels | undefined): void {
  if (!labels) return;
  for (const label of [labels.process, labels.mount]) if (label !== undefined) checkLabel(label);
}

function checkLabel(label: string): void {
  if (!selinuxIsOn()) {
    throw new IsolationError('ERR_CLOISTER_LABEL', `SELinux is off on this host, so nothing can be labelled ${label}`, {
      step: 'label by SELinux',
      path: label,
      hint: 'Leave selinux out, or boot a kernel that has it with lsm=…,selinux among its parameters, and a policy.',
      evidence: ['/proc/filesystems has no selinuxfs'],
    });
  }
  try {
    // Each writing is a question: sel_write_context.
    writeFileSync('/sys/fs/selinux/context', label, { flag: 'r+' });
  } catch (error) {
    // Where it cannot be asked, the step that uses it is told.
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') throw unknownContext(label, (error as NodeJS.ErrnoException).errno as number);
  }
}

function unknownContext(label: string, errno: number): IsolationError {
  return IsolationError.ofErrno('ERR_CLOISTER_LABEL', errno, {
    step: 'label by SELinux',
    path: label,
    syscall: 'write',
    what: "this host's policy knows no such context",
    hint: "Its users, roles, types and levels are the policy's: `seinfo` lists them, `ls -Z` and `ps -Z` show what is in use.",
  });
}

/** What the init tells of a program that could not be given its label. */
export function labelRefused(label: string, errno: number, index: number): IsolationError {
  if (errno === -22) return unknownContext(label, errno);
  return IsolationError.ofErrno('ERR_CLOISTER_LABEL', errno, {
    step: 'label by SELinux',
    index,
    path: label,
    syscall: 'write',
    hint: `The policy has to allow this process (${contextOf('self') ?? 'whose context cannot be read'}) process:setexec, and process:transition to that context.`,
  });
}

/** Of a process; undefined where it is not shown to us. */
export function contextOf(pid: number | 'self'): string | undefined {
  return look(`/proc/${pid}/attr/current`)?.replace(/\0$/, '');
}
