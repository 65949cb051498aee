import { type IpAddress, parseAddress } from './ip.js';
import * as x from './netlink/expressions.js';
import type { Request } from './netlink/message.js';
import { addRule, type Expression, type Table } from './netlink/nftables.js';
import type { PortSetting } from './options.js';

/**
 * A published port of a sandbox on a bridge. A socket of this process has it, and connects inside whatever comes from this host
 * (tcp-port.ts); what comes from elsewhere is led to the sandbox by the kernel, so that it sees who asks. None for ports of loopback
 * addresses, which nobody else reaches. `comment`: to find them again.
 */
export function publishRules(table: Table, port: PortSetting, guest: readonly IpAddress[], comment: string): Request[] {
  const address = parseAddress(port.address) as IpAddress;
  if (isLoopback(address)) return [];
  const all = address.bytes.every((byte) => byte === 0);
  return guest.flatMap((to) => {
    // A socket of :: has those of IPv4, too: ipv6(7).
    if (to.family !== address.family && !(all && address.family === 6)) return [];
    const here: readonly Expression[] = all ? [...x.isFamily(to.family), ...x.isToUs] : x.isTo({ ...address, prefix: address.bytes.length * 8 });
    return [addRule(table, 'published', [...here, ...x.isProtocol(port.protocol), ...x.toPort(port.host), ...x.dnat(to, port.guest)], comment)];
  });
}

const isLoopback = ({ family, bytes }: IpAddress): boolean => (family === 4 ? bytes[0] === 127 : bytes.every((byte, index) => byte === (index === 15 ? 1 : 0)));
