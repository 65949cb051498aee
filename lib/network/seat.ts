import { ownedName } from '../cgroup/owner-name.js';
import type { NetworkError } from '../errors.js';
import { type Bandwidth, limitReceiving, limitSending } from './bandwidth.js';
import { allowForwarding } from './forwarding.js';
import type { Hosts, HostsFile } from './hosts.js';
import { addressAt, contains, type IpAddress, type Subnet } from './ip.js';
import { gatewayNumber, type Leases, macFor } from './leases.js';
import { addAddress } from './netlink/address.js';
import { addVeth, changeLink, deleteLink, findLink, listLinks } from './netlink/link.js';
import { commit, deleteRule, deleteTable, listRules, type Table } from './netlink/nftables.js';
import { addRoute, everything } from './netlink/route.js';
import { NetlinkSocket, type Network } from './netlink/socket.js';
import type { PortSetting } from './options.js';
import { linkName } from './owned-link.js';
import { confinedRules, portFilter } from './port-filter.js';
import { publishRules } from './publish.js';

/** What seats share: their bridge. */
export interface Shared {
  readonly owner: string;
  /** Of the bridge. */
  readonly name: string;
  /** Index of the bridge. */
  readonly index: number;
  readonly subnets: readonly Subnet[];
  readonly leases: Leases;
  readonly hosts: Hosts;
  readonly route: NetlinkSocket;
  readonly filter: NetlinkSocket;
  /** Its packet filter. */
  readonly table: Table;
}

export interface SeatOptions {
  readonly address?: IpAddress | undefined;
  readonly mac?: string | undefined;
  readonly bandwidth?: Bandwidth | undefined;
  readonly hostname?: string | undefined;
  /** What it sends stays in the subnet. */
  readonly confined?: boolean | undefined;
}

/** The place of one network on a bridge: its addresses, and, once it is connected, a pair of links. */
export class Seat {
  readonly addresses: readonly IpAddress[];
  readonly hostname: string | undefined;
  readonly #shared: Shared;
  readonly #options: SeatOptions;
  #file: HostsFile | undefined;
  /** Our end of the pair. */
  #link: string | undefined;
  /** Of our end, if it is confined: a packet filter of its own. */
  readonly #portTable: Table | undefined;
  #published: readonly PortSetting[] = [];
  #connected = false;
  #released = false;

  constructor(shared: Shared, options: SeatOptions) {
    this.#shared = shared;
    this.#options = options;
    this.hostname = options.hostname;
    this.#portTable = options.confined ? { family: 'netdev', name: ownedName() } : undefined;
    this.addresses = shared.leases.take(options.address);
  }

  /** Once it is there: before, that it is not would not mean that it has gone. */
  get link(): string | undefined {
    return this.#connected ? this.#link : undefined;
  }

  /** For /etc/hosts: its path on the host. */
  hostsFile(names: Readonly<Record<string, string>>): string {
    this.#file ??= this.#shared.hosts.addFile(names);
    return this.#file.path;
  }

  /** Of those that are on the bridge now, in lower case. */
  addressesOf(name: string): readonly IpAddress[] {
    return this.#shared.hosts.addressesOf(name);
  }

  /** Of these, `host` is known by now. */
  publish(ports: readonly PortSetting[]): void {
    this.#published = ports;
  }

  /** The pair, its other end inside: with addresses, and the way out. On failure nothing is left of it. */
  async connect(network: Network): Promise<void> {
    const { owner, index, subnets, route, filter, hosts } = this.#shared;
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
      const ends = addVeth(pair, { name, network: network.fd, mac });
      const join = changeLink(pair, { alias: owner, master: index, up: true });
      if (this.#portTable) {
        await route.request(ends, changeLink(pair, { alias: owner }));
        // Before the first frame.
        await commit(filter, portFilter(this.#portTable, pair, { addresses: this.addresses, subnets, mac }));
        await route.request(join);
      } else await route.request(ends, join);
      const ours = await findLink(route, pair);
      this.#connected = true;
      const theirs = await findLink(inside, name);
      const addresses = this.addresses.map((address) => {
        const subnet = subnets.find((each) => contains(each, address)) as Subnet;
        return addAddress(theirs.index, address, subnet.prefix, subnet.family === 4 ? addressAt(subnet, 2 ** (32 - subnet.prefix) - 1) : undefined);
      });
      await inside.request(...addresses, changeLink(theirs.index, { up: true }), ...limitSending(theirs.index, bandwidth));
      for (const request of limitReceiving(ours.index, bandwidth)) await route.request(request);
      // Where it is on another bridge already, that one leads out; what is confined has a way of its own: egress/interception.ts.
      for (const subnet of this.#portTable ? [] : subnets) {
        const gateway = addressAt(subnet, gatewayNumber);
        await unlessErrno('EEXIST', inside.request(addRoute({ to: everything(subnet.family), gateway, link: theirs.index })));
      }
      await this.#lead(pair);
      hosts.addPeer(this);
    } catch (error) {
      await this.#disconnect();
      throw error;
    }
  }

  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    const { hosts, leases } = this.#shared;
    hosts.removePeer(this);
    if (this.#file) hosts.removeFile(this.#file);
    await this.#disconnect();
    // Only now: whoever gets the address next must not meet the link that had it.
    leases.give(this.addresses);
  }

  async #lead(comment: string): Promise<void> {
    const { filter, table } = this.#shared;
    const published = this.#published.flatMap((port) => publishRules(table, port, this.addresses, comment));
    const rules = this.#portTable ? [...published, ...confinedRules(table, this.#shared.name, this.addresses, comment)] : published;
    if (rules.length === 0) return;
    if (published.length > 0) for (const { family } of this.addresses) allowForwarding(family);
    await commit(filter, rules);
  }

  /** It goes with the network, too: then it is gone already. */
  async #disconnect(): Promise<void> {
    if (this.#link === undefined) return;
    if (this.#published.length > 0 || this.#portTable) {
      const { filter, table } = this.#shared;
      const rules = (await listRules(filter, table)).filter(({ comment }) => comment === this.#link);
      await commit(
        filter,
        rules.map((rule) => deleteRule(table, rule)),
      );
    }
    await unlessErrno('ENODEV', this.#shared.route.request(deleteLink(this.#link)));
    // After the link: nobody is on the bridge without it.
    if (this.#portTable) await unlessErrno('ENOENT', commit(this.#shared.filter, [deleteTable(this.#portTable)]));
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
