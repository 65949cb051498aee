import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import * as net from 'node:net';
import { networkInterfaces } from 'node:os';
import { bridgeSubnets } from '../bridge-subnets.js';
import { contains, type IpAddress, parseSubnet, type Subnet } from '../ip.js';
import { addressOf, type Policy } from './policy.js';

// Where names may not lead: whoever has the name's zone would reach what only this host can reach (DNS rebinding). This host itself, its
// bridges and links, and what clouds tell their machines, and only those, about themselves.
const barred = [
  '0.0.0.0/8',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '100.100.100.200',
  '224.0.0.0/4',
  '255.255.255.255',
  '::/128',
  '::1/128',
  'fe80::/10',
  'ff00::/8',
  'fd00:ec2::254',
].map((text) => parseSubnet(text) as Subnet);

export class Barred extends Error {
  readonly address: string;
  constructor(address: string) {
    super(`a name leads to ${address}`);
    this.address = address;
  }
}

/** Addresses that a name leads to, out here. Rejects with `Barred` if there is none but those that it may not lead to. */
export async function addressesOf(name: string, port: number, policy: Policy): Promise<string[]> {
  const fixed = policy.fixedAddress(name);
  if (fixed !== undefined) return [fixed];
  const found = await lookup(name, { all: true, verbatim: true });
  const allowed = found.filter(({ address }) => !isBarred(addressOf(address)) || policy.allowsAddress(addressOf(address), port));
  if (allowed.length === 0) throw new Barred(found[0]?.address ?? '');
  return allowed.map(({ address }) => address);
}

function isBarred(address: IpAddress): boolean {
  if ([...barred, ...bridgeSubnets].some((subnet) => contains(subnet, address))) return true;
  const ours = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((entry) => addressOf(entry.address.split('%')[0] as string)));
  return ours.some((own) => own.family === address.family && own.bytes.every((byte, index) => byte === address.bytes[index]));
}

/** Several addresses are tried as RFC 8305 has it, by Node. */
export async function connectTo(target: { addresses: readonly string[]; port: number } | { path: string }): Promise<net.Socket> {
  const socket = 'path' in target ? net.connect({ path: target.path, allowHalfOpen: true }) : connectToAddresses(target.addresses, target.port);
  await once(socket, 'connect');
  return socket;
}

function connectToAddresses(addresses: readonly string[], port: number): net.Socket {
  const [host = ''] = addresses;
  if (addresses.length === 1) return net.connect({ host, port, allowHalfOpen: true });
  const known = addresses.map((address) => ({ address, family: net.isIPv6(address) ? 6 : 4 }));
  return net.connect({
    host: 'name.invalid',
    port,
    allowHalfOpen: true,
    autoSelectFamily: true,
    lookup: (_name, _options, done) => (done as unknown as (error: null, all: typeof known) => void)(null, known),
  });
}
