import { existsSync } from 'node:fs';
import type { PlanBuilder } from '../../plan/builder.js';
import * as k from '../../plan/constants.js';
import type { Slot } from '../../plan/steps.js';
import { int32 } from '../../plan/structs.js';
import { socketAddress } from '../address.js';
import { type IpAddress, parseSubnet, type Subnet } from '../ip.js';
import { addAddress } from '../netlink/address.js';
import { compare, isProtocol, isTo, meta, tproxy, verdict } from '../netlink/expressions.js';
import { encodeMessage, NLM_F_ACK, type Request } from '../netlink/message.js';
import { addChain, addRule, addTable, type Expression, transaction } from '../netlink/nftables.js';
import { addRoute, everything, RT_TABLE_LOCAL } from '../netlink/route.js';
import { own, ownText, port } from './inside-addresses.js';

// A network with loopback alone, where the whole world is local: what is sent anywhere comes back by loopback, and there is led
// to sockets of ours, its destination unchanged (Documentation/networking/tproxy.rst). There is no way out of it but those sockets,
// whatever is done to routes and rules inside.

/** How the child hands them over, in this order; those of IPv6 only where the network has it. */
export const sockets = ['diagnosis', 'tcp4', 'udp4', 'raw4', 'tcp6', 'udp6', 'raw6'] as const;

const loopbackIndex = 1;
const loopback = { 4: parseSubnet('127.0.0.0/8') as Subnet, 6: parseSubnet('::1/128') as Subnet } as const;
/** Before everything that others could do there: NF_IP_PRI_MANGLE. */
const priority = -150;
const backlog = 4096;

/** In the child, while it may still change its network. Descriptors go through `channel`. */
export function intercept(plan: PlanBuilder, channel: Slot): void {
  const withSix = existsSync('/proc/net/if_inet6');
  const route = netlinkSocket(plan, 'route everything to this process', k.NETLINK_ROUTE);
  ask(plan, route, [localAddress(own[4], 32), localRoute(own[4])]);
  plan.label('intercept what is sent');
  const filter = netlinkSocket(plan, 'intercept what is sent', k.NETLINK_NETFILTER);
  ask(plan, filter, rules(withSix));
  const diagnosis = netlinkSocket(plan, 'open the sockets of this process inside', k.NETLINK_SOCK_DIAG);
  plan.add('send_fd', [channel, diagnosis]);
  openAll(plan, channel, 4);
  if (!withSix) return;
  plan.label('route everything to this process', 'IPv6');
  // Turned off, for all networks that are new: net.ipv6.conf.default.disable_ipv6.
  const six = ask(plan, route, [localAddress(own[6], 128)], [k.EACCES, k.EOPNOTSUPP, k.EAFNOSUPPORT]);
  plan.unless(six, 'tolerated', () => {
    ask(plan, route, [localRoute(own[6])]);
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
const localRoute = (source: IpAddress): Request =>
  addRoute({ type: 'local', to: everything(source.family), link: loopbackIndex, table: RT_TABLE_LOCAL, source });

function rules(withSix: boolean): Request[] {
  const table = { family: 'inet', name: 'cloister' } as const;
  const chain = 'egress';
  const away = (family: 4 | 6): Expression[] => [...isTo(loopback[family], false), ...isTo({ ...own[family], prefix: own[family].bytes.length * 8 }, false)];
  const lead = (family: 4 | 6, protocol: 'tcp' | 'udp'): Request =>
    addRule(table, chain, [...away(family), ...isProtocol(protocol), ...tproxy(family, port, own[family]), verdict('accept')]);
  // All that has no ports, ICMP above all: the kernel would answer for the whole world.
  const drop = (family: 4 | 6): Request =>
    addRule(table, chain, [...away(family), meta('l4proto'), compare(Buffer.of(6), false), compare(Buffer.of(17), false), verdict('drop')]);
  const families = withSix ? ([4, 6] as const) : ([4] as const);
  return transaction([
    addTable(table),
    addChain(table, { name: chain, hook: 'prerouting', type: 'filter', priority }),
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
