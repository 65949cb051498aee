import type { NetworkError } from '../errors.js';
import { type Bandwidth, limitReceiving, limitSending } from './bandwidth.js';
import type { Hosts, HostsFile } from './hosts.js';
import { addressAt, contains, type IpAddress, type Subnet } from './ip.js';
import { gatewayNumber, type Leases, macFor } from './leases.js';
import { addAddress } from './netlink/address.js';
import { addVeth, changeLink, deleteLink, findLink, listLinks } from './netlink/link.js';
import { addRoute, everything } from './netlink/route.js';
import { NetlinkSocket, type Network } from './netlink/socket.js';
import { linkName } from './owned-link.js';

/** What seats share: their bridge. */
export interface Table {
  readonly owner: string;
  /** Index of the bridge. */
  readonly index: number;
  readonly subnets: readonly Subnet[];
  readonly leases: Leases;
  readonly hosts: Hosts;
  readonly route: NetlinkSocket;
}

export interface SeatOptions {
  readonly address?: IpAddress | undefined;
  readonly mac?: string | undefined;
  readonly bandwidth?: Bandwidth | undefined;
  readonly hostname?: string | undefined;
}

/** The place of one network on a bridge: its addresses, and, once it is connected, a pair of links. */
export class Seat {
  readonly addresses: readonly IpAddress[];
  readonly hostname: string | undefined;
  readonly #table: Table;
  readonly #options: SeatOptions;
  #file: HostsFile | undefined;
  /** Our end of the pair. */
  #link: string | undefined;
  #released = false;

  constructor(table: Table, options: SeatOptions) {
    this.#table = table;
    this.#options = options;
    this.hostname = options.hostname;
    this.addresses = table.leases.take(options.address);
  }

  get link(): string | undefined {
    return this.#link;
  }

  /** For /etc/hosts: its path on the host. */
  hostsFile(names: Readonly<Record<string, string>>): string {
    this.#file ??= this.#table.hosts.addFile(names);
    return this.#file.path;
  }

  /** The pair, its other end inside: with addresses, and the way out. On failure nothing is left of it. */
  async connect(network: Network): Promise<void> {
    const { owner, index, subnets, route, hosts } = this.#table;
    const { bandwidth = {}, mac = macFor(subnets[0] as Subnet, this.addresses[0] as IpAddress) } = this.#options;
    using inside = await NetlinkSocket.open('route', network);
    const names = new Set((await listLinks(inside)).map(({ name }) => name));
    let number = 0;
    while (names.has(`eth${number}`)) number++;
    const name = `eth${number}`;
    const pair = linkName('v');
    this.#link = pair;
    try {
      // In the same breath: what has no owner would never be found again.
      await route.request(addVeth(pair, { name, network: network.fd, mac }), changeLink(pair, { alias: owner, master: index, up: true }));
      const ours = await findLink(route, pair);
      const theirs = await findLink(inside, name);
      const addresses = this.addresses.map((address) => {
        const subnet = subnets.find((each) => contains(each, address)) as Subnet;
        return addAddress(theirs.index, address, subnet.prefix, subnet.family === 4 ? addressAt(subnet, 2 ** (32 - subnet.prefix) - 1) : undefined);
      });
      await inside.request(...addresses, changeLink(theirs.index, { up: true }), ...limitSending(theirs.index, bandwidth));
      for (const request of limitReceiving(ours.index, bandwidth)) await route.request(request);
      // Where it is on another bridge already, that one leads out.
      for (const subnet of subnets) {
        const gateway = addressAt(subnet, gatewayNumber);
        await unlessErrno('EEXIST', inside.request(addRoute({ to: everything(subnet.family), gateway, link: theirs.index })));
      }
      hosts.addPeer(this);
    } catch (error) {
      await this.#disconnect();
      throw error;
    }
  }

  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    const { hosts, leases } = this.#table;
    hosts.removePeer(this);
    if (this.#file) hosts.removeFile(this.#file);
    await this.#disconnect();
    // Only now: whoever gets the address next must not meet the link that had it.
    leases.give(this.addresses);
  }

  /** It goes with the network, too: then it is gone already. */
  async #disconnect(): Promise<void> {
    if (this.#link === undefined) return;
    await unlessErrno('ENODEV', this.#table.route.request(deleteLink(this.#link)));
  }
}

export async function unlessErrno<T>(name: string, work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if ((error as NetworkError).errnoName === name) return undefined;
    throw error;
  }
}
