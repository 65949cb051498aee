import { optionError } from '../errors.js';
import { Namespace } from '../namespace/namespace.js';
import { Bridge } from '../network/bridge.js';
import { type AttachOptions, seatOptions } from '../network/bridge-options.js';
import { standInRanges } from '../network/egress/inside-addresses.js';
import { contains, formatSubnet, overlap, parseAddress } from '../network/ip.js';
import type { NetworkOptions } from '../network/types.js';
import type { NamespaceChoice } from './settings.js';
import type { SpawnOptions } from './types.js';
import * as check from './validate.js';

/** The `network` of a spawn that is on a bridge, checked. */
export interface BridgeSetting {
  readonly bridge: Bridge;
  readonly seat: AttachOptions;
  /** Names of its own, for /etc/hosts. */
  readonly dns: Readonly<Record<string, string>>;
}

const isOnBridge = (network: SpawnOptions['network']): network is NetworkOptions =>
  typeof network === 'object' && network !== null && 'bridge' in network && network.bridge !== undefined;

/** What is left for who knows of no bridge. */
export function withoutBridge(network: SpawnOptions['network']): SpawnOptions['network'] {
  if (isOnBridge(network)) {
    const { ports, egress, dns } = network;
    const rest = { ...(ports === undefined ? {} : { ports }), ...ratesOf(network) };
    if (egress !== undefined) return { ...rest, egress, ...(dns === undefined ? {} : { dns: split(network).outside }) };
    return ports === undefined ? 'none' : rest;
  }
  if (typeof network !== 'object' || network === null || network instanceof Namespace || Array.isArray(network)) return network;
  const { bridge: _, ...rest } = network as NetworkOptions;
  for (const option of ['address', 'mac'] as const)
    if (rest[option] !== undefined) throw optionError(`network.${option}`, 'nothing without `bridge`', rest[option]);
  return rest;
}

/** Of what does not pass the link: it passes this process. */
function ratesOf({ bandwidth }: NetworkOptions): Pick<NetworkOptions, 'bandwidth'> {
  const { egressBps, ingressBps } = bandwidth ?? {};
  if (egressBps === undefined && ingressBps === undefined) return {};
  return { bandwidth: { ...(egressBps === undefined ? {} : { egressBps }), ...(ingressBps === undefined ? {} : { ingressBps }) } };
}

export function bridgeOf(options: SpawnOptions, namespaces: { readonly net: NamespaceChoice; readonly mount: NamespaceChoice }): BridgeSetting | undefined {
  const { network, hostname, detached } = options;
  if (!isOnBridge(network)) return undefined;
  check.onlyKeys(network, 'network', ['bridge', 'address', 'mac', 'ports', 'bandwidth', 'egress', 'dns']);
  const { bridge, address, mac, bandwidth, egress, dns } = network;
  if (!(bridge instanceof Bridge)) throw optionError('network.bridge', 'a Bridge', bridge);
  if (namespaces.net !== 'new') throw optionError('network.bridge', "nothing when namespaces.net is not 'new'", bridge);
  if (detached) throw optionError('detached', 'false with a bridge, which goes with this process', detached);
  const meant = egress === undefined ? undefined : bridge.subnets.find((subnet) => overlap(subnet, standInRanges[subnet.family]));
  if (meant) throw optionError('network.egress', `a bridge without addresses that stand for names, as ${formatSubnet(meant)} has`, egress);
  const names = egress === undefined ? dns : split(network).neighbours;
  if (names !== undefined && namespaces.mount !== 'new')
    throw optionError('network.dns', "nothing when namespaces.mount is not 'new': there is no /etc/hosts to write", dns);
  const seat = seatOptions({ address, mac, bandwidth }, 'network.', bridge);
  if (seat.bandwidth !== undefined) checkLimitIsKept(options);
  return { bridge, seat: { ...seat, hostname, confined: egress !== undefined }, dns: names === undefined ? {} : dnsOf(names) };
}

/** Where egress is decided, `dns` says where names lead: those of neighbours into the subnet, which is not decided about. */
function split({ bridge, dns }: NetworkOptions): { readonly neighbours: Record<string, string> | undefined; readonly outside: Record<string, string> } {
  // What is wrong with it is said by who takes it.
  if (!(bridge instanceof Bridge) || dns === null || typeof dns !== 'object') return { neighbours: undefined, outside: dns as never };
  const isNeighbour = ([, value]: [string, unknown]): boolean => {
    const address = typeof value === 'string' ? parseAddress(value) : undefined;
    return address !== undefined && bridge.subnets.some((subnet) => contains(subnet, address));
  };
  const entries = Object.entries(dns);
  const neighbours = entries.filter(isNeighbour);
  return {
    neighbours: neighbours.length === 0 ? undefined : Object.fromEntries(neighbours),
    outside: Object.fromEntries(entries.filter((entry) => !isNeighbour(entry))),
  };
}

/** What a sandbox sends is shaped at its own end of the pair, which whoever may configure its network could undo. */
function checkLimitIsKept({ capabilities, network }: SpawnOptions): void {
  const lists = capabilities === undefined ? [] : Array.isArray(capabilities) ? [capabilities] : Object.values(capabilities);
  if (lists.some((list) => Array.isArray(list) && list.includes('CAP_NET_ADMIN')))
    throw optionError('network.bandwidth', 'nothing with CAP_NET_ADMIN, which could undo it', (network as { bandwidth?: unknown }).bandwidth);
}

function dnsOf(value: unknown): Record<string, string> {
  const names = check.record(value, 'network.dns');
  for (const [name, address] of Object.entries(names)) {
    if (!/^[A-Za-z0-9_.-]{1,253}$/.test(name)) throw optionError('network.dns', 'names of letters, digits, dots, dashes and underscores', name);
    if (typeof address !== 'string' || !parseAddress(address)) throw optionError(`network.dns.${name}`, 'an IPv4 or IPv6 address', address);
  }
  return names as Record<string, string>;
}
