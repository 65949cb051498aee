import type { Link } from '../namespace/types.js';
import { formatAddress } from './ip.js';
import { listAddresses } from './netlink/address.js';
import { listLinks } from './netlink/link.js';
import { NetlinkSocket, type Network } from './netlink/socket.js';

export async function linksOf(network: Network): Promise<Link[]> {
  using socket = await NetlinkSocket.open('route', network);
  const links = await listLinks(socket);
  const addresses = await listAddresses(socket);
  return links.map(({ name, index, mac, mtu, up }) => ({
    name,
    index,
    mac,
    mtu,
    up,
    addresses: addresses.filter(({ link }) => link === index).map((address) => `${formatAddress(address)}/${address.prefix}`),
  }));
}
