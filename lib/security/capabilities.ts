import { optionError } from '../errors.js';
import type { Capability } from './types.js';

/** By number, linux/capability.h; capabilities(7). */
export const capabilityNames = [
  'CHOWN',
  'DAC_OVERRIDE',
  'DAC_READ_SEARCH',
  'FOWNER',
  'FSETID',
  'KILL',
  'SETGID',
  'SETUID',
  'SETPCAP',
  'LINUX_IMMUTABLE',
  'NET_BIND_SERVICE',
  'NET_BROADCAST',
  'NET_ADMIN',
  'NET_RAW',
  'IPC_LOCK',
  'IPC_OWNER',
  'SYS_MODULE',
  'SYS_RAWIO',
  'SYS_CHROOT',
  'SYS_PTRACE',
  'SYS_PACCT',
  'SYS_ADMIN',
  'SYS_BOOT',
  'SYS_NICE',
  'SYS_RESOURCE',
  'SYS_TIME',
  'SYS_TTY_CONFIG',
  'MKNOD',
  'LEASE',
  'AUDIT_WRITE',
  'AUDIT_CONTROL',
  'SETFCAP',
  'MAC_OVERRIDE',
  'MAC_ADMIN',
  'SYSLOG',
  'WAKE_ALARM',
  'BLOCK_SUSPEND',
  'AUDIT_READ',
  'PERFMON',
  'BPF',
  'CHECKPOINT_RESTORE',
] as const;

const numbers: ReadonlyMap<string, number> = new Map(capabilityNames.map((name, number) => [`CAP_${name}`, number]));

/** The five sets of capabilities(7), a bit per capability. */
export interface CapabilitySets {
  readonly bounding: bigint;
  readonly effective: bigint;
  readonly permitted: bigint;
  readonly inheritable: bigint;
  readonly ambient: bigint;
}

export function capabilityMask(names: readonly Capability[], option: string): bigint {
  let mask = 0n;
  for (const name of names) {
    const number = numbers.get(name);
    if (number === undefined) throw optionError(option, "names as in capabilities(7), such as 'CAP_NET_BIND_SERVICE'", name);
    mask |= 1n << BigInt(number);
  }
  return mask;
}

export function capabilitiesOf(mask: bigint): Capability[] {
  return capabilityNames.filter((_, number) => (mask >> BigInt(number)) & 1n).map((name) => `CAP_${name}` as const);
}
