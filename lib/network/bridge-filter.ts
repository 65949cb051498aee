import { linkLocal, type Subnet } from './ip.js';
import * as x from './netlink/expressions.js';
import type { Request } from './netlink/message.js';
import { addChain, addRule, addTable, type Expression, type Table } from './netlink/nftables.js';
import { linkPrefix } from './owned-link.js';

/** linux/netfilter_ipv4.h: NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER, NF_IP_PRI_NAT_SRC */
const priorities = { target: -100, filter: 0, source: 100 } as const;

export interface Filtered {
  /** The bridge. */
  readonly name: string;
  readonly subnets: readonly Subnet[];
  /** Of each subnet, that of the bridge itself. */
  readonly gateways: readonly Subnet[];
  readonly masquerade: boolean;
}

/**
 * The packet filter of one bridge. A packet that a chain accepts goes on to the chains of other tables, one that it drops is gone: so
 * each bridge guards itself, whatever other bridges of ours, of other processes, or a firewall of the host's allow.
 */
export function bridgeFilter(table: Table, { name, subnets, gateways, masquerade }: Filtered): Request[] {
  const families = [4, 6] as const;
  const rule = (chain: string, ...parts: readonly (Expression | readonly Expression[])[]): Request =>
    addRule(
      table,
      chain,
      parts.flatMap((part) => (isExpression(part) ? [part] : part)),
    );
  const used = (family: 4 | 6): Subnet[] => subnets.filter((subnet) => subnet.family === family);
  // Nobody sends as somebody else.
  const spoofed = families.flatMap((family) => [
    rule('forward', x.comesFrom(name), x.isFamily(family), ...used(family).map((subnet) => x.isFrom(subnet, false)), x.verdict('drop')),
  ]);
  return [
    addTable(table),
    addChain(table, { name: 'forward', hook: 'forward', priority: priorities.filter }),
    // Here only where bridges show it what stays on them: br_netfilter, net.bridge.bridge-nf-call-iptables.
    rule('forward', x.comesFrom(name), x.leavesBy(name), x.verdict('accept')),
    ...spoofed,
    rule('forward', x.isReply, x.verdict('accept')),
    // A published port.
    rule('forward', x.leavesBy(name), x.isRedirected, x.verdict('accept')),
    rule('forward', x.leavesBy(name), x.reject('prohibited')),
    ...(masquerade ? [] : [rule('forward', x.comesFrom(name), x.reject('prohibited')), ...leaving(table, name, subnets)]),
    addChain(table, { name: 'input', hook: 'input', priority: priorities.filter }),
    // Frames to some groups of IEEE 802.1D are the host's own, by the link that they came from (br_handle_frame): so is what is in them.
    rule('input', x.comesFromAny(linkPrefix('v')), x.verdict('drop')),
    rule('input', x.comesFrom(name, false), x.verdict('accept')),
    // Nobody on the bridge is a router, which the host would believe: RFC 4861, 4.2 and 4.5 (CVE-2020-13401).
    ...[134, 137].map((type) => rule('input', x.isProtocol('icmp6'), [x.payload('transport', 0, 1), x.compare(Buffer.of(type))], x.verdict('drop'))),
    rule('input', x.isReply, x.verdict('accept')),
    // Also how neighbours are found: RFC 4861.
    rule('input', x.isProtocol('icmp'), x.verdict('accept')),
    rule('input', x.isProtocol('icmp6'), x.verdict('accept')),
    // What listens on the bridge's own address is meant for who is on it; what listens on all addresses is not.
    ...gateways.map((gateway) => rule('input', x.isTo(gateway), x.isBoundToAddress, x.verdict('accept'))),
    rule('input', x.reject('prohibited')),
    addChain(table, { name: 'published', type: 'nat', hook: 'prerouting', priority: priorities.target }),
    addChain(table, { name: 'published-here', type: 'nat', hook: 'output', priority: priorities.target }),
    addChain(table, { name: 'masquerade', type: 'nat', hook: 'postrouting', priority: priorities.source }),
    // Who asks for a published port of its own bridge gets answers from whom it has asked.
    ...subnets.map((subnet) => rule('masquerade', x.isFrom(subnet), x.leavesBy(name), x.isRedirected, x.masquerade)),
    ...(masquerade ? subnets.map((subnet) => rule('masquerade', x.isFrom(subnet), x.leavesBy(name, false), x.masquerade)) : []),
  ];
}

/** Where packets are not forwarded at all, nobody would tell the sender that: so it is told before. */
function leaving(table: Table, name: string, subnets: readonly Subnet[]): Request[] {
  const chain = 'leaving';
  const stays = [...subnets, linkLocal].map((subnet) => addRule(table, chain, [...x.isTo(subnet), x.verdict('accept')]));
  return [
    // After published ports have become addresses of the subnet.
    addChain(table, { name: chain, hook: 'prerouting', priority: priorities.target + 10 }),
    addRule(table, chain, [...x.comesFrom(name, false), x.verdict('accept')]),
    addRule(table, chain, [...x.isReply, x.verdict('accept')]),
    ...stays,
    addRule(table, chain, [...x.isToElsewhere, x.reject('prohibited')]),
  ];
}

/** An expression begins with an attribute, whose first is a number. */
function isExpression(part: Expression | readonly Expression[]): part is Expression {
  return typeof part[0]?.[0] === 'number';
}
