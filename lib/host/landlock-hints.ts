import * as k from '../plan/constants.js';
import type { Advice, Refusal } from './hints.js';

/** Why the kernel refused a step of lib/security/landlock/steps.ts. */
export function landlockAdvice({ step, syscall, errno, path }: Refusal): Advice | undefined {
  if (step === 'restrict by Landlock' && errno === k.EPERM) {
    return {
      what: 'who may gain privileges by executing a program must have CAP_SYS_ADMIN to restrict itself',
      hint: 'Leave noNewPrivileges as it is by default (true).',
    };
  }
  // LANDLOCK_MAX_NUM_LAYERS; a sandbox in a sandbox adds one.
  if (step === 'restrict by Landlock' && errno === 7) return { what: '16 layers of Landlock are on this process already, and it takes no more' };
  if (step !== 'allow by Landlock' || syscall !== 'openat2') return undefined;
  if (errno === k.ENOENT) return { what: `there is no ${path} inside`, hint: 'Paths of `landlock` are paths inside the sandbox; `mounts` can bring one in.' };
  if (errno === k.ENOTDIR) return { what: `the way to ${path} inside goes through a file` };
  if (errno === k.ELOOP) return { what: `the way to ${path} inside goes through a link of /proc, or through symlinks without end` };
  if (errno === k.EACCES) return { what: `root inside may not search the way to ${path}` };
  return undefined;
}
