// Links: rtnetlink(7), linux/rtnetlink.h and linux/if_link.h.

import { type Answer, type Attribute, decodeAttributes, encodeAttributes, NLM_F_CREATE, NLM_F_EXCL, type Request, text, textOf, u32 } from './message.js';
import type { NetlinkSocket } from './socket.js';

const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_NET_NS_FD = 28;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
/** linux/veth.h */
const VETH_INFO_PEER = 1;
/** linux/if.h */
const IFF_UP = 1;

export interface LinkInfo {
  readonly index: number;
  readonly name: string;
  /** 'bridge', 'veth'; undefined for hardware and loopback. */
  readonly kind: string | undefined;
  readonly mac: string;
  /** Bytes. */
  readonly mtu: number;
  readonly up: boolean;
  /** Index of the bridge that it is a port of. */
  readonly master: number | undefined;
  /** Index of a veth's other end, in its own network. */
  readonly peer: number | undefined;
  readonly alias: string | undefined;
}

export interface LinkChange {
  readonly mac?: string | undefined;
  readonly mtu?: number | undefined;
  readonly up?: boolean;
  /** Index of a bridge. */
  readonly master?: number;
  /** Up to 255 bytes, for people and for us: ifalias. */
  readonly alias?: string;
  readonly rename?: string;
  /** Descriptor of the network that it moves to. */
  readonly network?: number;
}

/** struct ifinfomsg */
function ifinfomsg(index: number, up?: boolean): Buffer {
  const body = Buffer.alloc(16);
  body.writeInt32LE(index, 4);
  body.writeUInt32LE(up ? IFF_UP : 0, 8);
  body.writeUInt32LE(up === undefined ? 0 : IFF_UP, 12);
  return body;
}

export const macBytes = (mac: string): Buffer => Buffer.from(mac.replaceAll(':', ''), 'hex');
export const macText = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('hex')
    .replace(/..(?=.)/g, '$&:');

function attributesOf({ mac, mtu, master, alias, rename, network }: LinkChange): Attribute[] {
  const list: Attribute[] = [];
  if (mac !== undefined) list.push([IFLA_ADDRESS, macBytes(mac)]);
  if (mtu !== undefined) list.push([IFLA_MTU, u32(mtu)]);
  if (master !== undefined) list.push([IFLA_MASTER, u32(master)]);
  if (alias !== undefined) list.push([IFLA_IFALIAS, Buffer.from(alias)]);
  if (rename !== undefined) list.push([IFLA_IFNAME, text(rename)]);
  if (network !== undefined) list.push([IFLA_NET_NS_FD, u32(network)]);
  return list;
}

/** By index, or by the name of one that an earlier request of the same exchange makes. */
export function changeLink(link: number | string, change: LinkChange): Request {
  const byName = typeof link === 'string';
  return {
    type: RTM_NEWLINK,
    flags: 0,
    body: ifinfomsg(byName ? 0 : link, change.up),
    attributes: [...(byName ? [[IFLA_IFNAME, text(link)] as Attribute] : []), ...attributesOf(change)],
    step: 'configure the link',
    path: String(link),
  };
}

export function addBridge(name: string, change: LinkChange = {}): Request {
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: ifinfomsg(0, change.up),
    attributes: [[IFLA_IFNAME, text(name)], [IFLA_LINKINFO, [[IFLA_INFO_KIND, text('bridge')]]], ...attributesOf(change)],
    step: 'make the bridge',
    path: name,
  };
}

/** A pair, of which the other end, `peer`, begins in another network. veth(4) */
export function addVeth(
  name: string,
  peer: { readonly name: string; readonly network?: number; readonly mac?: string | undefined },
  change: LinkChange = {},
): Request {
  const { name: peerName, ...rest } = peer;
  // The structure of the peer lies before its attributes, as it does in a message.
  const inner = Buffer.concat([ifinfomsg(0), encodeAttributes([[IFLA_IFNAME, text(peerName)], ...attributesOf(rest)])]);
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: ifinfomsg(0, change.up),
    attributes: [
      [IFLA_IFNAME, text(name)],
      [
        IFLA_LINKINFO,
        [
          [IFLA_INFO_KIND, text('veth')],
          [IFLA_INFO_DATA, [[VETH_INFO_PEER, inner]]],
        ],
      ],
      ...attributesOf(change),
    ],
    step: 'make the pair of links',
    path: name,
  };
}

export function deleteLink(link: number | string): Request {
  const byName = typeof link === 'string';
  return {
    type: RTM_DELLINK,
    flags: 0,
    body: ifinfomsg(byName ? 0 : link),
    attributes: byName ? [[IFLA_IFNAME, text(link)]] : [],
    step: 'remove the link',
    path: String(link),
  };
}

export async function listLinks(socket: NetlinkSocket): Promise<LinkInfo[]> {
  const answers = await socket.dump({ type: RTM_GETLINK, flags: 0, body: ifinfomsg(0), attributes: [], step: 'list the links' });
  return answers.filter(({ type }) => type === RTM_NEWLINK).map(decodeLink);
}

/** Rejects with ENODEV if there is none. */
export async function findLink(socket: NetlinkSocket, name: string): Promise<LinkInfo> {
  const answers = await socket.request({
    type: RTM_GETLINK,
    flags: 0,
    body: ifinfomsg(0),
    attributes: [[IFLA_IFNAME, text(name)]],
    step: 'find the link',
    path: name,
  });
  return decodeLink(answers[0] as Answer);
}

function decodeLink({ payload }: Answer): LinkInfo {
  const attributes = decodeAttributes(payload.subarray(16));
  const info = attributes.get(IFLA_LINKINFO);
  return {
    index: payload.readInt32LE(4),
    name: textOf(attributes.get(IFLA_IFNAME)) ?? '',
    kind: info && textOf(decodeAttributes(info).get(IFLA_INFO_KIND)),
    mac: macText(attributes.get(IFLA_ADDRESS) ?? Buffer.alloc(0)),
    mtu: attributes.get(IFLA_MTU)?.readUInt32LE(0) ?? 0,
    up: (payload.readUInt32LE(8) & IFF_UP) !== 0,
    master: attributes.get(IFLA_MASTER)?.readUInt32LE(0),
    peer: attributes.get(IFLA_LINK)?.readUInt32LE(0),
    alias: textOf(attributes.get(IFLA_IFALIAS)),
  };
}
