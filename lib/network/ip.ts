import { isIPv4, isIPv6 } from 'node:net';

// Addresses as the bytes that packets have.

export interface IpAddress {
  readonly family: 4 | 6;
  /** 4 or 16 of them. */
  readonly bytes: Uint8Array;
}

/** A network: `bytes` are 0 behind `prefix`. */
export interface Subnet extends IpAddress {
  readonly prefix: number;
}

/** undefined: not one. A zone (fe80::1%eth0) is not part of an address. */
export function parseAddress(text: string): IpAddress | undefined {
  if (isIPv4(text)) return { family: 4, bytes: Uint8Array.from(text.split('.'), Number) };
  if (!isIPv6(text) || text.includes('%')) return undefined;
  // The last 32 bits may be written as an IPv4 address: RFC 4291, 2.2.
  const dotted = /(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
  const [, a, b, c, d] = (dotted ?? []).map(Number) as number[];
  const hex = dotted
    ? text.slice(0, dotted.index) + [(a as number) * 256 + (b as number), (c as number) * 256 + (d as number)].map((word) => word.toString(16)).join(':')
    : text;
  const [before = '', after] = hex.split('::');
  const words = (part: string): number[] => (part === '' ? [] : part.split(':').map((word) => Number.parseInt(word, 16)));
  const [front, back] = [words(before), words(after ?? '')];
  const all = [...front, ...new Array<number>(8 - front.length - back.length).fill(0), ...back];
  return { family: 6, bytes: Uint8Array.from(all.flatMap((word) => [word >> 8, word & 255])) };
}

/** As inet_ntop(3) writes it: RFC 5952, the longest run of zeros left out. */
export function formatAddress({ family, bytes }: IpAddress): string {
  if (family === 4) return bytes.join('.');
  const words = Array.from({ length: 8 }, (_, index) => (((bytes[index * 2] as number) << 8) | (bytes[index * 2 + 1] as number)).toString(16));
  let longest = { start: 0, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (words[start + length] === '0') length++;
    if (length > longest.length) longest = { start, length };
  }
  if (longest.length < 2) return words.join(':');
  return `${words.slice(0, longest.start).join(':')}::${words.slice(longest.start + longest.length).join(':')}`;
}

/** '10.0.0.0/8'; an address alone is a network of one. Bits behind the prefix are dropped. undefined: not one. */
export function parseSubnet(text: string): Subnet | undefined {
  const [base = '', length, more] = text.split('/');
  const address = parseAddress(base);
  if (!address || more !== undefined || (length !== undefined && !/^\d{1,3}$/.test(length))) return undefined;
  const bits = address.bytes.length * 8;
  const prefix = length === undefined ? bits : Number(length);
  if (prefix > bits) return undefined;
  const { family } = address;
  return { family, prefix, bytes: masked({ family, prefix, bytes: address.bytes }) };
}

/** RFC 4291, 2.5.6 */
export const linkLocal: Subnet = { family: 6, bytes: Uint8Array.of(0xfe, 0x80, ...new Array<number>(14).fill(0)), prefix: 10 };

export const formatSubnet = (subnet: Subnet): string => `${formatAddress(subnet)}/${subnet.prefix}`;

export function maskOf(family: 4 | 6, prefix: number): Uint8Array {
  return Uint8Array.from({ length: family === 4 ? 4 : 16 }, (_, index) => 256 - 2 ** (8 - Math.min(8, Math.max(0, prefix - index * 8))));
}

export function contains(subnet: Subnet, address: IpAddress): boolean {
  if (subnet.family !== address.family) return false;
  const mask = maskOf(subnet.family, subnet.prefix);
  return subnet.bytes.every((byte, index) => byte === ((address.bytes[index] as number) & (mask[index] as number)));
}

/** Whether an address is in both. */
export function overlap(one: Subnet, other: Subnet): boolean {
  return one.prefix <= other.prefix ? contains(one, other) : contains({ ...other, bytes: masked(other) }, one);
}

const masked = ({ family, bytes, prefix }: Subnet): Uint8Array => bytes.map((byte, index) => byte & (maskOf(family, prefix)[index] as number));

/** Its address of that number, counted from the network's own, 0. */
export function addressAt(subnet: Subnet, number: number): IpAddress {
  const bytes = Uint8Array.from(subnet.bytes);
  for (let index = bytes.length - 1, rest = number; index >= 0 && rest > 0; index--) {
    rest += bytes[index] as number;
    bytes[index] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  return { family: subnet.family, bytes };
}

/** The inverse: which number an address of the subnet has. */
export function numberOf(subnet: Subnet, address: IpAddress): number {
  return address.bytes.reduce((number, byte, index) => number * 256 + (byte - (subnet.bytes[index] as number)), 0);
}
