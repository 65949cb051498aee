import type { IpAddress, Subnet } from './ip.js';
import { linkLocal, maskOf, parseSubnet } from './ip.js';
import * as x from './netlink/expressions.js';
import { macBytes } from './netlink/link.js';
import { be16, type Request } from './netlink/message.js';
import { addChain, addRule, addTable, type Expression, type Table } from './netlink/nftables.js';

/** linux/if_ether.h */
const etherTypes = { ip: 0x0800, arp: 0x0806, ip6: 0x86dd } as const;
const isType = (type: keyof typeof etherTypes): Expression[] => [x.meta('protocol'), x.compare(be16(etherTypes[type]))];
const has = (base: 'link' | 'network', offset: number, value: Uint8Array): Expression[] => [x.payload(base, offset, value.length), x.compare(value)];
const within = (offset: number, { bytes, prefix }: Subnet): Expression[] => [
  x.payload('network', offset, bytes.length),
  x.mask(maskOf(bytes.length === 4 ? 4 : 6, prefix)),
  x.compare(bytes),
];
const linkMulticast = parseSubnet('ff02::/16') as Subnet;

export interface Confined {
  readonly addresses: readonly IpAddress[];
  readonly subnets: readonly Subnet[];
  readonly mac: string;
}

/**
 * What a sandbox whose egress is decided may send by its link: frames from itself, to its subnet. On our end of the pair, where whoever
 * may change its own network has no say, and at the ingress of the link: a bridge hands frames to some groups of IEEE 802.1D to the
 * host, past the filters of bridges (br_handle_frame).
 */
export function portFilter(table: Table, link: string, { addresses, subnets, mac }: Confined): Request[] {
  const chain = 'sent';
  const accept = (...parts: readonly (readonly Expression[])[]): Request => addRule(table, chain, [...parts.flat(), x.verdict('accept')]);
  const own = macBytes(mac);
  const of = (family: 4 | 6): IpAddress[] => addresses.filter((address) => address.family === family);
  const to = (family: 4 | 6): Subnet[] => subnets.filter((subnet) => subnet.family === family);
  const sender = has('link', 6, own);
  const four = of(4).flatMap(({ bytes }) =>
    to(4).flatMap((subnet) => [
      // RFC 826: its hardware address, its address, and whom it looks for.
      accept(isType('arp'), sender, has('network', 8, own), has('network', 14, bytes), within(24, subnet)),
      // RFC 791, without options: a source route names other destinations.
      accept(
        isType('ip'),
        sender,
        [x.payload('network', 0, 1), x.mask(Buffer.of(0x0f)), x.compare(Buffer.of(5))],
        has('network', 12, bytes),
        within(16, subnet),
      ),
    ]),
  );
  // Its own of the link belongs to RFC 4861, by which neighbours are found.
  const sources = of(6).map((address): Subnet => ({ ...address, prefix: 128 }));
  // RFC 8200, without headers that name other destinations. 44: a fragment.
  const others = addRule(table, chain, [
    ...isType('ip6'),
    x.payload('network', 6, 1),
    ...[6, 17, 44, 58].map((next) => x.compare(Buffer.of(next), false)),
    x.verdict('drop'),
  ]);
  const six = [...sources, ...(sources.length > 0 ? [linkLocal] : [])].flatMap((source) =>
    [...to(6), linkLocal, linkMulticast].map((subnet) => accept(isType('ip6'), sender, within(8, source), within(24, subnet))),
  );
  // Nor is it a router: RFC 4861, 4.2 and 4.5.
  const routers = [134, 137].map((type) =>
    addRule(table, chain, [...x.isProtocol('icmp6'), x.payload('transport', 0, 1), x.compare(Buffer.of(type)), x.verdict('drop')]),
  );
  const requests = [addTable(table), addChain(table, { name: chain, hook: 'ingress', link, policy: 'drop' }), ...four, others, ...routers, ...six];
  return requests.map((request) => ({ ...request, step: 'confine the link', path: link }));
}

/** Of the filter of its bridge. `comment`: to find them again. */
export function confinedRules(table: Table, bridge: string, addresses: readonly IpAddress[], comment: string): Request[] {
  const rule = (chain: string, ...expressions: readonly Expression[]): Request => addRule(table, chain, expressions, comment);
  return addresses.flatMap((address) => {
    const alone: Subnet = { ...address, prefix: address.bytes.length * 8 };
    return [
      // A published port of somebody else's, asked for at an address of the subnet, leads out of it.
      rule('forward', ...x.comesFrom(bridge), ...x.isFrom(alone), ...x.leavesBy(bridge, false), x.reject('prohibited')),
      // Who asks for its own from elsewhere is answered by way of the bridge's address.
      rule('masquerade', ...x.isTo(alone), ...x.leavesBy(bridge), ...x.isRedirected, x.masquerade),
    ];
  });
}
