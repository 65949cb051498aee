import * as k from '../plan/constants.js';
import type { Advice, Look, Refusal } from './hints.js';

/** aa_change_profile in security/apparmor/domain.c */
export function labelAdvice({ step, syscall, errno, path }: Refusal, at: Look): Advice | undefined {
  if (step !== 'confine by AppArmor' || syscall !== 'write') return undefined;
  const own = at('/proc/self/attr/apparmor/current') ?? 'unknown';
  const evidence = [`this process has the profile ${own}`];
  if (errno === k.ENOENT) {
    return {
      what: 'no profile of that name is loaded',
      hint: `apparmor_parser -r FILE loads it, as root; that of this package is profiles/apparmor/cloister-default. apparmor: false goes without one.`,
      evidence,
    };
  }
  if (errno === k.EACCES)
    return { what: `the profile of this process does not let it change to that one`, hint: `It needs the rule \`change_profile -> ${path},\`.`, evidence };
  return undefined;
}
