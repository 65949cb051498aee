import { ownedName } from '../cgroup/owner-name.js';
import { IsolationError, NetworkError, optionError } from '../errors.js';
import { Namespace } from '../namespace/namespace.js';
import type { NetNamespace } from '../namespace/net.js';
import { bridgeFilter } from './bridge-filter.js';
import { type AttachOptions, type BridgeOptions, checkAttach, checkBridge } from './bridge-options.js';
import { bridgeSubnets } from './bridge-subnets.js';
import { allowForwarding } from './forwarding.js';
import { Hosts } from './hosts.js';
import { addressAt, formatAddress, formatSubnet, overlap, type Subnet } from './ip.js';
import { gatewayNumber, Leases, macFor } from './leases.js';
import { addAddress, listAddresses } from './netlink/address.js';
import { addBridge, changeLink, deleteLink, findLink, type LinkInfo, listLinks } from './netlink/link.js';
import { commit, deleteTable, type Table } from './netlink/nftables.js';
import { NetlinkSocket } from './netlink/socket.js';
import { removeNetworkOrphans } from './orphans.js';
import { linkName } from './owned-link.js';
import { Seat, type SeatOptions, unlessErrno } from './seat.js';

/**
 * A network that sandboxes share: a bridge of the host's network, from whose subnets each gets addresses. They see each other by
 * `hostname`; nobody else reaches them but the host itself, and they reach nobody else, unless `masquerade`, or the
 * `egress` of one, lets them out: docs/bridge.md.
 */
export class Bridge implements AsyncDisposable {
  /** Of the link, as `ip link` shows it. */
  readonly name: string;
  readonly #owner: string;
  readonly #index: number;
  readonly #subnets: readonly Subnet[];
  readonly #masquerade: boolean;
  readonly #leases: Leases;
  readonly #hosts: Hosts;
  readonly #route: NetlinkSocket;
  readonly #filter: NetlinkSocket;
  readonly #seats = new Set<Seat>();
  #deleted: Promise<void> | undefined;

  private constructor({ name, index }: LinkInfo, owner: string, route: NetlinkSocket, filter: NetlinkSocket, options: BridgeOptions) {
    this.name = name;
    this.#index = index;
    this.#owner = owner;
    this.#route = route;
    this.#filter = filter;
    this.#subnets = options.subnets;
    this.#masquerade = options.masquerade;
    this.#leases = new Leases(options.subnets);
    this.#hosts = new Hosts(owner);
  }

  /**
   * A new one, removed by `delete`, or, if this process is killed, by the next that makes one, or by `reap()`. `subnet`: one of IPv4
   * ('10.9.0.0/24'), one of IPv6 ('fd09::/64'), or both; the first address of each is the bridge's own. `name`: 1 to 15 letters,
   * digits, dots, dashes and underscores. `masquerade` (default: false): what leaves the subnet has the host's address; turns on
   * forwarding on this host, which stays on.
   *
   * Needs CAP_NET_ADMIN and CAP_SYS_ADMIN. Rejects with `TypeError`, `NetworkError` ERR_CLOISTER_NETWORK: refused, a name that is taken,
   * or a subnet that this host is in already.
   */
  static async create(options: { name?: string; subnet: string | readonly string[]; masquerade?: boolean }): Promise<Bridge> {
    const checked = checkBridge(options);
    const { subnets, masquerade } = checked;
    const route = await NetlinkSocket.open('route');
    const filter = await NetlinkSocket.open('netfilter');
    const owner = ownedName();
    let made: LinkInfo | undefined;
    try {
      await removeNetworkOrphans();
      await checkFree(route, subnets);
      made = await makeBridge(route, checked, owner);
      const { index, name } = made;
      const gateways = subnets.map((subnet) => ({ ...addressAt(subnet, gatewayNumber), prefix: subnet.bytes.length * 8 }));
      // Before anybody can be on it.
      await commit(filter, bridgeFilter(tableOf(owner), { name, subnets, gateways, masquerade }));
      await route.request(...subnets.map((subnet) => addAddress(index, addressAt(subnet, gatewayNumber), subnet.prefix)), changeLink(index, { up: true }));
      if (masquerade) for (const { family } of subnets) allowForwarding(family);
      for (const subnet of subnets) bridgeSubnets.add(subnet);
      return new Bridge(made, owner, route, filter, checked);
    } catch (error) {
      if (made) await remove(route, filter, made.index, owner);
      route.close();
      filter.close();
      throw error;
    }
  }

  /**
   * Puts a network on the bridge: a link of its own ('eth0', or the next that is free), up, with an address of each subnet, and the way
   * out. `address`: one of a subnet of the bridge; `hostname`: what peers find it by. It is on the bridge until one of the two is gone.
   *
   * Rejects with `TypeError`, `NetworkError` ERR_CLOISTER_NETWORK (an address that is in use, or none left), ERR_CLOISTER_DISPOSED.
   */
  async attach(
    namespace: NetNamespace,
    options: {
      address?: string;
      mac?: string;
      bandwidth?: { egressBps?: number; ingressBps?: number; delayMs?: number; lossPercent?: number };
      hostname?: string;
    } = {},
  ): Promise<{ addresses: readonly string[] }> {
    if (!(namespace instanceof Namespace) || namespace.type !== 'net') throw optionError('namespace', 'a NetNamespace', namespace);
    const seat = await this.seat(checkAttach(options, this));
    try {
      await seat.connect(namespace);
    } catch (error) {
      await this.leave(seat);
      throw error;
    }
    return { addresses: seat.addresses.map(formatAddress) };
  }

  /** Takes it away, at once: sandboxes that are on it have no network but loopback then. */
  delete(): Promise<void> {
    this.#deleted ??= this.#delete();
    return this.#deleted;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.delete();
  }

  /** @internal */
  get subnets(): readonly Subnet[] {
    return this.#subnets;
  }

  /** @internal Whether what is on it can leave the subnet. */
  get masquerades(): boolean {
    return this.#masquerade;
  }

  /** @internal Addresses for one more. */
  async seat(options: SeatOptions & AttachOptions): Promise<Seat> {
    this.#check();
    await this.#sweep();
    const seat = new Seat(
      {
        owner: this.#owner,
        name: this.name,
        index: this.#index,
        subnets: this.#subnets,
        leases: this.#leases,
        hosts: this.#hosts,
        route: this.#route,
        filter: this.#filter,
        table: tableOf(this.#owner),
      },
      options,
    );
    this.#seats.add(seat);
    return seat;
  }

  /** @internal */
  async leave(seat: Seat): Promise<void> {
    this.#seats.delete(seat);
    await seat.release();
  }

  #check(): void {
    if (this.#deleted) throw new IsolationError('ERR_CLOISTER_DISPOSED', `the bridge ${this.name} has been deleted`);
  }

  /** A network that is gone has taken its link along; nobody tells us. */
  async #sweep(): Promise<void> {
    const connected = [...this.#seats].filter(({ link }) => link !== undefined);
    if (connected.length === 0) return;
    const names = new Set((await listLinks(this.#route)).map(({ name }) => name));
    for (const seat of connected) if (!names.has(seat.link as string)) await this.leave(seat);
  }

  async #delete(): Promise<void> {
    for (const seat of this.#seats) await this.leave(seat);
    await remove(this.#route, this.#filter, this.#index, this.#owner);
    for (const subnet of this.#subnets) bridgeSubnets.delete(subnet);
    this.#hosts.clear();
    this.#route.close();
    this.#filter.close();
  }
}

const tableOf = (owner: string): Table => ({ family: 'inet', name: owner });

/** The link before the filter, so that nobody is on a bridge without one. */
async function remove(route: NetlinkSocket, filter: NetlinkSocket, index: number, owner: string): Promise<void> {
  await unlessErrno('ENODEV', route.request(deleteLink(index)));
  await unlessErrno('ENOENT', commit(filter, [deleteTable(tableOf(owner))]));
}

/** Named at last: a name that is taken is somebody else's, and nothing is said of that one. */
async function makeBridge(route: NetlinkSocket, { name, subnets }: BridgeOptions, owner: string): Promise<LinkInfo> {
  const [subnet] = subnets as [Subnet];
  const own = linkName('b');
  try {
    // A MAC address of its own, so that it does not change with whoever joins: br_stp_recalculate_bridge_id.
    await route.request(addBridge(own, { mac: macFor(subnet, addressAt(subnet, gatewayNumber)) }), changeLink(own, { alias: owner }));
    const made = await findLink(route, own);
    if (name === undefined) return made;
    await route.request({ ...changeLink(made.index, { rename: name }), step: 'name the bridge', path: name });
    return { ...made, name };
  } catch (error) {
    await route.request(deleteLink(own)).catch(() => {});
    throw error;
  }
}

/** Two links with one subnet: packets would go to either. */
async function checkFree(route: NetlinkSocket, subnets: readonly Subnet[]): Promise<void> {
  for (const used of await listAddresses(route)) {
    const taken = subnets.find((subnet) => overlap(subnet, used));
    if (!taken) continue;
    const name = (await listLinks(route)).find(({ index }) => index === used.link)?.name;
    throw new NetworkError('ERR_CLOISTER_NETWORK', `${formatSubnet(taken)} is in use here: ${name} has ${formatAddress(used)}/${used.prefix}`, {
      step: 'make the bridge',
      path: formatSubnet(taken),
      hint: 'Choose another subnet: one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918) or fd00::/8 (RFC 4193).',
    });
  }
}
