import { existsSync } from 'node:fs';
import type { PlanBuilder } from '../../plan/builder.js';
import * as k from '../../plan/constants.js';
import type { Slot } from '../../plan/steps.js';
import { int32 } from '../../plan/structs.js';
import { socketAddress } from '../address.js';
import { type IpAddress, linkLocal, parseSubnet, type Subnet } from '../ip.js';
import { addAddress } from '../netlink/address.js';
import { comesFrom, compare, isProtocol, isTo, meta, tproxy, verdict } from '../netlink/expressions.js';
import { encodeMessage, NLM_F_ACK, type Request } from '../netlink/message.js';
import { addChain, addRule, addTable, type Expression, transaction } from '../netlink/nftables.js';
import { addRoute, everything, RT_TABLE_LOCAL, RT_TABLE_MAIN } from '../netlink/route.js';
import { own, ownText, port } from './inside-addresses.js';

// A network with loopback alone, where the whole world is local: what is sent anywhere comes back by loopback, and there is led
// to sockets of ours, its destination unchanged (Documentation/networking/tproxy.rst). There is no way out of it but those sockets,
// whatever is done to routes and rules inside.
//
// On a bridge there is a link to its subnet, and what is sent there goes that way. What else could be sent by it, is not taken there:
// port-filter.ts, on the other side of the link.

/** How the child hands them over, in this order; those of IPv6 only where the network has it. */
export const sockets = ['diagnosis', 'tcp4', 'udp4', 'raw4', 'tcp6', 'udp6', 'raw6'] as const;

const loopbackIndex = 1;
const linkMulticast = parseSubnet('ff02::/16') as Subnet;
const loopback = { 4: parseSubnet('127.0.0.0/8') as Subnet, 6: parseSubnet('::1/128') as Subnet } as const;
/** Before everything that others could do there: NF_IP_PRI_MANGLE. */
const priority = -150;
const backlog = 4096;

/** In the child, while it may still change its network. Descriptors go through `channel`. `neighbours`: the subnets of its bridge. */
export function intercept(plan: PlanBuilder, channel: Slot, neighbours: readonly Subnet[] = []): void {
  // The local table is asked first. In the main one, the way to a subnet is found before that to everything.
  const table = neighbours.length === 0 ? RT_TABLE_LOCAL : RT_TABLE_MAIN;
  const withSix = existsSync('/proc/net/if_inet6');
  const route = netlinkSocket(plan, 'route everything to this process', k.NETLINK_ROUTE);
  ask(plan, route, [localAddress(own[4], 32), localRoute(own[4], table)]);
  plan.label('intercept what is sent');
  const filter = netlinkSocket(plan, 'intercept what is sent', k.NETLINK_NETFILTER);
  ask(plan, filter, rules(withSix, neighbours));
  const diagnosis = netlinkSocket(plan, 'open the sockets of this process inside', k.NETLINK_SOCK_DIAG);
  plan.add('send_fd', [channel, diagnosis]);
  openAll(plan, channel, 4);
  if (!withSix) return;
  plan.label('route everything to this process', 'IPv6');
  // Turned off, for all networks that are new: net.ipv6.conf.default.disable_ipv6.
  const six = ask(plan, route, [localAddress(own[6], 128)], [k.EACCES, k.EOPNOTSUPP, k.EAFNOSUPPORT]);
  plan.unless(six, 'tolerated', () => {
    ask(plan, route, [localRoute(own[6], table)]);
    openAll(plan, channel, 6);
  });
}

function netlinkSocket(plan: PlanBuilder, label: string, protocol: number): Slot {
  plan.label(label);
  return plan.open('netlink socket', 'socket', [k.AF_NETLINK, k.SOCK_RAW | k.SOCK_CLOEXEC, protocol]);
}

/** One write: the last message asks for the answer. */
function ask(plan: PlanBuilder, socket: Slot, requests: readonly Request[], tolerate: readonly number[] = []): ReturnType<PlanBuilder['add']> {
  const last = requests.length - 1;
  const messages = requests.map((request, index) => encodeMessage(index === last ? { ...request, flags: request.flags | NLM_F_ACK } : request, index + 1));
  return plan.add('netlink', [socket, Buffer.concat(messages)], { tolerate });
}

const localAddress = (address: IpAddress, prefix: number): Request => addAddress(loopbackIndex, address, prefix);
/** Before any other to everywhere, as neighbours could advertise them: RFC 4861, 4.2. */
const localRoute = (source: IpAddress, table: number): Request =>
  addRoute({ type: 'local', to: everything(source.family), link: loopbackIndex, table, source, ...(source.family === 6 ? { metric: 1 } : {}) });

function rules(withSix: boolean, neighbours: readonly Subnet[]): Request[] {
  const table = { family: 'inet', name: 'cloister' } as const;
  const chain = 'egress';
  const near = neighbours.length === 0 ? [] : [...neighbours, linkLocal];
  const away = (family: 4 | 6): Expression[] => {
    const here = [loopback[family], { ...own[family], prefix: own[family].bytes.length * 8 }, ...near.filter((subnet) => subnet.family === family)];
    return here.flatMap((subnet) => isTo(subnet, false));
  };
  // Who is next to us is not let out by us: 198.18.0.1 and all that is behind it are for this sandbox alone.
  const arrivals = near.length === 0 ? [] : [...near, linkMulticast].map((subnet) => [...comesFrom('lo', false), ...isTo(subnet), verdict('accept')]);
  if (near.length > 0) arrivals.push([...comesFrom('lo', false), verdict('drop')]);
  const lead = (family: 4 | 6, protocol: 'tcp' | 'udp'): Request =>
    addRule(table, chain, [...away(family), ...isProtocol(protocol), ...tproxy(family, port, own[family]), verdict('accept')]);
  // All that has no ports, ICMP above all: the kernel would answer for the whole world.
  const drop = (family: 4 | 6): Request =>
    addRule(table, chain, [...away(family), meta('l4proto'), compare(Buffer.of(6), false), compare(Buffer.of(17), false), verdict('drop')]);
  const families = withSix ? ([4, 6] as const) : ([4] as const);
  return transaction([
    addTable(table),
    addChain(table, { name: chain, hook: 'prerouting', type: 'filter', priority }),
    ...arrivals.map((rule) => addRule(table, chain, rule)),
    ...families.flatMap((family) => [lead(family, 'tcp'), lead(family, 'udp'), drop(family)]),
  ]);
}

function openAll(plan: PlanBuilder, channel: Slot, family: 4 | 6): void {
  const domain = family === 4 ? k.AF_INET : k.AF_INET6;
  const level = family === 4 ? k.IPPROTO_IP : k.IPPROTO_IPV6;
  const address = socketAddress(ownText[family], port);
  plan.label('open the sockets of this process inside', family === 4 ? undefined : 'IPv6');
  const transparent = (type: number): Slot => {
    const socket = plan.open('socket', 'socket', [domain, type | k.SOCK_CLOEXEC | k.SOCK_NONBLOCK, 0]);
    plan.add('setsockopt', [socket, level, family === 4 ? k.IP_TRANSPARENT : k.IPV6_TRANSPARENT, int32(1)]);
    plan.add('bind', [socket, address]);
    return socket;
  };
  const tcp = transparent(k.SOCK_STREAM);
  // Before the program runs: its first connection must not come too early.
  plan.add('listen', [tcp, backlog]);
  const udp = transparent(k.SOCK_DGRAM);
  plan.add('setsockopt', [udp, level, family === 4 ? k.IP_RECVORIGDSTADDR : k.IPV6_RECVORIGDSTADDR, int32(1)]);
  const raw = plan.open('socket', 'socket', [domain, k.SOCK_RAW | k.SOCK_CLOEXEC | k.SOCK_NONBLOCK, k.IPPROTO_RAW]);
  for (const socket of [tcp, udp, raw]) plan.add('send_fd', [channel, socket]);
}
