import * as k from '../plan/constants.js';
import type { Advice, Refusal } from './hints.js';

export function speculationAdvice({ step, errno, path }: Refusal): Advice | undefined {
  if (step === 'share no core' && errno === k.EINVAL)
    return { what: 'this kernel has no core scheduling', hint: 'It is CONFIG_SCHED_CORE, since Linux 5.14. Leave coreScheduling out, or switch SMT off.' };
  if (step !== 'restrict speculation') return undefined;
  if (path === 'l1d-flush' && errno === k.EPERM)
    return {
      what: 'this machine does not flush the L1 data cache for single processes',
      hint: 'The boot parameter l1d_flush=on allows it, on processors that can.',
    };
  if (errno === k.ENODEV || errno === k.EINVAL) return { what: `this kernel or processor has no control of ${path}` };
  if (errno === k.ENXIO || errno === k.EPERM)
    return {
      what: `the control of ${path} is switched off for all processes of this machine`,
      hint: 'Boot parameters decide: spec_store_bypass_disable=prctl, spectre_v2_user=prctl.',
    };
  return undefined;
}
