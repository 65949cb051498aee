import { isIP, isIPv4, isIPv6 } from 'node:net';
import { optionError } from '../errors.js';
import * as k from '../plan/constants.js';
import { integer } from '../spawn/validate.js';

/** The four or sixteen bytes of an address that `isIP` has found to be one; a zone is left out. */
export function addressBytes(address: string): Uint8Array {
  if (isIPv4(address)) return Uint8Array.from(address.split('.').map(Number));
  const [text = ''] = address.split('%');
  const [head = '', tail] = text.split('::') as [string, string?];
  const words = (part: string | undefined): number[] =>
    (part ?? '')
      .split(':')
      .filter((word) => word !== '')
      .flatMap((word) => {
        if (!word.includes('.')) return [Number.parseInt(word, 16)];
        const [a = 0, b = 0, c = 0, d = 0] = word.split('.').map(Number);
        return [(a << 8) | b, (c << 8) | d];
      });
  const [first, last] = [words(head), words(tail)];
  const all = [...first, ...new Array<number>(8 - first.length - last.length).fill(0), ...last];
  return Uint8Array.from(all.flatMap((word) => [word >> 8, word & 0xff]));
}

/** As `isIP` writes them; RFC 5952 without its compression, which Node's own comparisons do not need. */
export function addressText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const words = Array.from({ length: 8 }, (_, index) => (((bytes[index * 2] as number) << 8) | (bytes[index * 2 + 1] as number)).toString(16));
  // The longest run of zeros, as RFC 5952, 4.2.3 has it.
  const runs = [...words.join(':').matchAll(/\b0(?::0)+\b/g)].map(([run]) => run).sort((a, b) => b.length - a.length);
  const [longest] = runs;
  return longest === undefined ? words.join(':') : words.join(':').replace(longest, '::').replace(/:{3,}/, '::');
}

/** struct sockaddr_in, sockaddr_in6: ip(7), ipv6(7). */
export function socketAddress(host: string, port: number): Uint8Array {
  const bytes = Buffer.alloc(isIPv6(host) ? 28 : 16);
  bytes.writeUInt16LE(isIPv6(host) ? k.AF_INET6 : k.AF_INET, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.set(addressBytes(host), isIPv6(host) ? 8 : 4);
  return bytes;
}

export const familyOf = (host: string): number => (isIPv6(host) ? k.AF_INET6 : k.AF_INET);

/** `[::1]:80`, `127.0.0.1:80` */
export const endpointText = (host: string, port: number): string => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`);

/** An address, or `localhost`: names inside are not ours to look up. */
export function checkAddress(value: unknown, option: string): string {
  if (value === 'localhost') return '127.0.0.1';
  if (typeof value !== 'string' || isIP(value) === 0) throw optionError(option, "an IPv4 or IPv6 address, or 'localhost'", value);
  return value;
}

export const checkPort = (value: unknown, option: string, least = 1): number => integer(value, option, least, 65535);
