import { contains, formatAddress, type IpAddress, parseAddress } from '../ip.js';

// What the inside of a sandbox sees instead of the world. 198.18.0.0/15 is for benchmarks between devices (RFC 2544) and never
// in use where packets could lead; of IPv6 a /48 of our own, of those that anybody may choose (RFC 4193).

const known = (text: string): IpAddress => parseAddress(text) as IpAddress;

/** Ours inside: the sandbox's own address towards the world, and that of its name server. */
export const own = { 4: known('198.18.0.1'), 6: known('fdc1:157:e2aa::1') } as const;
export const ownText = { 4: formatAddress(own[4]), 6: formatAddress(own[6]) } as const;
/** Of the name server, and of the sockets that everything else is led to. */
export const port = 53;

const first = 256;
/** Names that one sandbox may ask for: what it makes us remember has an end. */
export const mostNames = 16_384;

/** The stand-in of the name with this number. */
export function standIn(family: 4 | 6, number: number): IpAddress {
  const bytes = Uint8Array.from(own[family].bytes);
  const value = first + number;
  const at = bytes.length - 4;
  bytes[at + 2] = (value >> 8) & 0xff;
  bytes[at + 3] = value & 0xff;
  if (family === 6) bytes[at - 4] = 1;
  return { family, bytes };
}

export const standInRanges = { 4: { ...known('198.18.0.0'), prefix: 15 }, 6: { ...known('fdc1:157:e2aa::'), prefix: 48 } } as const;
/** Ours: it means nobody outside. */
export const isStandIn = (address: IpAddress): boolean => contains(standInRanges[address.family], address);
