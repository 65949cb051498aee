// Structures that system calls read, in the machine's byte order (little-endian on both architectures we build for).

/** Plans ask for the same few structures again and again: each is made once, by a number that tells it, and never written to. */
const made = new Map<number, Uint8Array>();

function once(key: number, ...values: readonly number[]): Uint8Array {
  let bytes = made.get(key);
  if (!bytes) {
    // Descriptor numbers are part of keys: not without end.
    if (made.size > 1000) made.clear();
    bytes = new Uint8Array(new BigUint64Array(values.map(BigInt)).buffer);
    made.set(key, bytes);
  }
  return bytes;
}

/** struct mount_attr of mount_setattr(2). `userns` is a descriptor's number, known when it is written. */
export function mountAttr({ set = 0, propagation = 0, userns = 0 }: { set?: number; propagation?: number; userns?: number }): Uint8Array {
  // Attributes end below bit 22; propagation is MS_PRIVATE or MS_SLAVE, bits 18 and 19.
  return once((userns * 4 + propagation / 2 ** 18) * 2 ** 22 + set, set, 0, propagation, userns);
}

/** struct open_how of openat2(2). */
export function openHow(flags: number, resolve: number): Uint8Array {
  return once(-1 - (flags * 32 + resolve), flags, 0, resolve);
}

/** struct __user_cap_header_struct and two of __user_cap_data_struct: capset(2), version 3. */
export function capabilityHeader(): Uint8Array {
  return new Uint8Array(new Uint32Array([0x20080522, 0]).buffer);
}
export function capabilityData(effective: bigint, permitted: bigint, inheritable: bigint): Uint8Array {
  const half = (set: bigint, shift: bigint): number => Number((set >> shift) & 0xffffffffn);
  const words = [0n, 32n].flatMap((shift) => [half(effective, shift), half(permitted, shift), half(inheritable, shift)]);
  return new Uint8Array(new Uint32Array(words).buffer);
}

/** struct rlimit64 of prlimit(2); Infinity is RLIM_INFINITY. */
export function resourceLimit(soft: number, hard: number): Uint8Array {
  const value = (limit: number): bigint => (limit === Number.POSITIVE_INFINITY ? 0xffffffffffffffffn : BigInt(limit));
  return new Uint8Array(new BigUint64Array([value(soft), value(hard)]).buffer);
}

/** The kernel's struct sigaction with SIG_DFL: all zeros. */
export const defaultSignalAction: Uint8Array = new Uint8Array(32);
/** An empty sigset_t of the kernel's size. */
export const noSignals: Uint8Array = new Uint8Array(8);

/** struct ifreq with a name and flags: netdevice(7). */
export function interfaceFlags(name: string, flags: number): Uint8Array {
  const bytes = Buffer.alloc(40);
  bytes.write(name, 0, 15, 'latin1');
  bytes.writeInt16LE(flags, 16);
  return bytes;
}

/** struct winsize of ioctl_tty(2). */
export function windowSize(columns: number, rows: number): Uint8Array {
  return new Uint8Array(new Uint16Array([rows, columns, 0, 0]).buffer);
}

export const int32 = (value: number): Uint8Array => new Uint8Array(new Int32Array([value]).buffer);
export const groupList = (groups: readonly number[]): Uint8Array => new Uint8Array(new Uint32Array(groups).buffer);
