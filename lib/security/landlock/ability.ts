import { errnoName, IsolationError } from '../../errors.js';
import { native } from '../../native.js';
import * as k from '../../plan/constants.js';
import { kernelOfAbi } from './rights.js';

let known: number | undefined;

/** The ABI of this kernel's Landlock, or a negative errno: landlock_create_ruleset(2), LANDLOCK_CREATE_RULESET_VERSION. */
export function landlockAbi(): number {
  known ??= native().landlockAbi();
  return known;
}

const step = 'restrict by Landlock';
const syscall = 'landlock_create_ruleset';

/** Throws ERR_CLOISTER_LANDLOCK where there is none; `cause`: why it is needed. */
export function requireLandlock(abi: number, cause?: unknown): void {
  if (abi > 0) return;
  throw IsolationError.ofErrno('ERR_CLOISTER_LANDLOCK', abi, {
    step,
    syscall,
    ...(cause === undefined ? {} : { cause }),
    ...(abi === -k.EOPNOTSUPP
      ? {
          what: 'this kernel has Landlock, but was started without it',
          hint: 'Add `landlock` to the list of the boot parameter lsm= (that of CONFIG_LSM is in use, or one without it).',
          evidence: [`${syscall} is ${errnoName(abi)}`],
        }
      : {
          what: 'this kernel has no Landlock, or a system call filter around this process hides it',
          hint: 'Landlock came with Linux 5.13, and needs CONFIG_SECURITY_LANDLOCK.',
          evidence: [`${syscall} is ${errnoName(abi)}`],
        }),
  });
}

/** What was named, and this kernel cannot do: never left out in silence. */
export function cannotRestrict(what: readonly string[], abi: number, needed: number): IsolationError {
  const since = kernelOfAbi[needed];
  return new IsolationError('ERR_CLOISTER_LANDLOCK', `${step}: the Landlock of this kernel (ABI ${abi}) cannot restrict ${what.join(', ')}`, {
    step,
    hint: `That came with ABI ${needed}, Linux ${since}. Leave it out, or let fallback: 'landlock' do what can be done; the receipt then names what is missing.`,
    evidence: [`the ABI of Landlock is ${abi}`],
  });
}
