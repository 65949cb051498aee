import { isIP, isIPv6 } from 'node:net';
import { optionError } from '../errors.js';
import * as k from '../plan/constants.js';
import { integer } from '../spawn/validate.js';
import { type IpAddress, parseAddress } from './ip.js';

/** struct sockaddr_in, sockaddr_in6: ip(7), ipv6(7). */
export function socketAddress(host: string, port: number): Uint8Array {
  const bytes = Buffer.alloc(isIPv6(host) ? 28 : 16);
  bytes.writeUInt16LE(isIPv6(host) ? k.AF_INET6 : k.AF_INET, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.set((parseAddress(host) as IpAddress).bytes, isIPv6(host) ? 8 : 4);
  return bytes;
}

export const familyOf = (host: string): number => (isIPv6(host) ? k.AF_INET6 : k.AF_INET);

/** `[::1]:80`, `127.0.0.1:80` */
export const endpointText = (host: string, port: number): string => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`);

/** An address, or `localhost`: names inside are not ours to look up. */
export function checkAddress(value: unknown, option: string): string {
  if (value === 'localhost') return '127.0.0.1';
  if (typeof value !== 'string' || isIP(value) === 0 || value.includes('%')) throw optionError(option, "an IPv4 or IPv6 address, or 'localhost'", value);
  return value;
}

export const checkPort = (value: unknown, option: string, least = 1): number => integer(value, option, least, 65535);
