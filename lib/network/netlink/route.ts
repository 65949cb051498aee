// Routes: rtnetlink(7), linux/rtnetlink.h.

import { formatSubnet, type IpAddress, type Subnet } from '../ip.js';
import { familyNumber, familyOf } from './address.js';
import { type Attribute, decodeAttributes, NLM_F_CREATE, NLM_F_EXCL, type Request, u32 } from './message.js';
import type { NetlinkSocket } from './socket.js';

const RTM_NEWROUTE = 24;
const RTM_GETROUTE = 26;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_TABLE = 15;
const RT_TABLE_UNSPEC = 0;
export const RT_TABLE_MAIN = 254;
export const RT_TABLE_LOCAL = 255;
const RTPROT_STATIC = 4;
const scopes = { universe: 0, link: 253, host: 254 } as const;
const types = { unicast: 1, local: 2, broadcast: 3, anycast: 4, multicast: 5, blackhole: 6, unreachable: 7, prohibit: 8 } as const;

export interface Route {
  /** Default: 'unicast'. `local`: what goes there is for us; `ip route add local default dev lo`. */
  readonly type?: keyof typeof types;
  /** Everything: prefix 0. */
  readonly to: Subnet;
  readonly gateway?: IpAddress | undefined;
  /** Index. */
  readonly link?: number | undefined;
  /** Default: the main one. */
  readonly table?: number;
  readonly metric?: number;
  /** The address that whoever has none yet gets. */
  readonly source?: IpAddress;
}

export const everything = (family: 4 | 6): Subnet => ({ family, bytes: new Uint8Array(family === 4 ? 4 : 16), prefix: 0 });

/** struct rtmsg */
function rtmsg(family: number, prefix: number, scope: number, type: number): Buffer {
  return Buffer.of(family, prefix, 0, 0, RT_TABLE_UNSPEC, RTPROT_STATIC, scope, type, 0, 0, 0, 0);
}

export function addRoute({ type = 'unicast', to, gateway, link, table = RT_TABLE_MAIN, metric, source }: Route): Request {
  const attributes: Attribute[] = [[RTA_TABLE, u32(table)]];
  if (to.prefix > 0) attributes.push([RTA_DST, to.bytes]);
  if (gateway) attributes.push([RTA_GATEWAY, gateway.bytes]);
  if (link !== undefined) attributes.push([RTA_OIF, u32(link)]);
  if (source) attributes.push([RTA_PREFSRC, source.bytes]);
  if (metric !== undefined) attributes.push([RTA_PRIORITY, u32(metric)]);
  const scope = type === 'local' ? scopes.host : type === 'unicast' && !gateway ? scopes.link : scopes.universe;
  return {
    type: RTM_NEWROUTE,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: rtmsg(familyNumber(to.family), to.prefix, to.family === 4 ? scope : scopes.universe, types[type]),
    attributes,
    step: 'add a route',
    path: to.prefix === 0 ? 'default' : formatSubnet(to),
  };
}

export async function listRoutes(socket: NetlinkSocket): Promise<(Required<Pick<Route, 'to' | 'table'>> & Route)[]> {
  const answers = await socket.dump({ type: RTM_GETROUTE, flags: 0, body: rtmsg(0, 0, 0, 0), attributes: [], step: 'list the routes' });
  return answers
    .filter(({ type }) => type === RTM_NEWROUTE)
    .map(({ payload }) => {
      const attributes = decodeAttributes(payload.subarray(12));
      const family = familyOf(payload[0] as number);
      const gateway = attributes.get(RTA_GATEWAY);
      const type = (Object.keys(types) as (keyof typeof types)[]).find((name) => types[name] === payload[7]);
      return {
        ...(type === undefined ? {} : { type }),
        to: { family, prefix: payload[1] as number, bytes: Uint8Array.from(attributes.get(RTA_DST) ?? everything(family).bytes) },
        gateway: gateway && { family, bytes: Uint8Array.from(gateway) },
        link: attributes.get(RTA_OIF)?.readUInt32LE(0),
        table: attributes.get(RTA_TABLE)?.readUInt32LE(0) ?? (payload[4] as number),
      };
    });
}
