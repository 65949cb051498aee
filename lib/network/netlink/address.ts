// Addresses of links: rtnetlink(7), linux/if_addr.h.

import { formatAddress, type IpAddress } from '../ip.js';
import { type Attribute, decodeAttributes, NLM_F_CREATE, NLM_F_EXCL, type Request, u32 } from './message.js';
import type { NetlinkSocket } from './socket.js';

const RTM_NEWADDR = 20;
const RTM_GETADDR = 22;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_FLAGS = 8;
/** Usable at once: nobody else can have an address that we hand out. */
const IFA_F_NODAD = 0x02;

/** linux/socket.h */
export const familyNumber = (family: 4 | 6): number => (family === 4 ? 2 : 10);
export const familyOf = (number: number): 4 | 6 => (number === 2 ? 4 : 6);

export interface AddressInfo extends IpAddress {
  /** Index of the link. */
  readonly link: number;
  readonly prefix: number;
}

/** struct ifaddrmsg */
function ifaddrmsg(family: number, prefix: number, link: number): Buffer {
  const body = Buffer.alloc(8);
  body[0] = family;
  body[1] = prefix;
  body.writeUInt32LE(link, 4);
  return body;
}

export function addAddress(link: number, address: IpAddress, prefix: number, broadcast?: IpAddress): Request {
  const attributes: Attribute[] = [
    [IFA_LOCAL, address.bytes],
    [IFA_ADDRESS, address.bytes],
  ];
  if (broadcast) attributes.push([IFA_BROADCAST, broadcast.bytes]);
  if (address.family === 6) attributes.push([IFA_FLAGS, u32(IFA_F_NODAD)]);
  return {
    type: RTM_NEWADDR,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: ifaddrmsg(familyNumber(address.family), prefix, link),
    attributes,
    step: 'give the link an address',
    path: `${formatAddress(address)}/${prefix}`,
  };
}

export async function listAddresses(socket: NetlinkSocket): Promise<AddressInfo[]> {
  const answers = await socket.dump({ type: RTM_GETADDR, flags: 0, body: ifaddrmsg(0, 0, 0), attributes: [], step: 'list the addresses' });
  return answers
    .filter(({ type }) => type === RTM_NEWADDR)
    .map(({ payload }) => {
      const attributes = decodeAttributes(payload.subarray(8));
      // Of a point-to-point link, IFA_ADDRESS is the other end's.
      const bytes = Uint8Array.from(attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS) ?? []);
      return { family: familyOf(payload[0] as number), bytes, prefix: payload[1] as number, link: payload.readUInt32LE(4) };
    });
}
