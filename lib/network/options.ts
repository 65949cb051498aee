// The `network` option, checked.

import { optionError } from '../errors.js';
import { Namespace } from '../namespace/namespace.js';
import { list, oneOf, onlyKeys, record } from '../spawn/validate.js';
import { checkAddress, checkPort } from './address.js';
import { type Bandwidth, checkBandwidth } from './bandwidth.js';
import { AllowList } from './egress/allow-list.js';
import type { EgressSetting } from './egress/policy.js';
import type { EgressRequest } from './types.js';

export interface PortSetting {
  /** 0: the kernel chooses. */
  readonly host: number;
  readonly guest: number;
  /** Of the host's side. */
  readonly address: string;
  readonly protocol: 'tcp' | 'udp';
}

export interface NetworkSettings {
  readonly ports: readonly PortSetting[];
  /** undefined: there is no way out, and nobody is told of who tries. */
  readonly egress: EgressSetting | undefined;
  readonly dns: ReadonlyMap<string, string>;
  /** Rates alone. */
  readonly bandwidth: Bandwidth | undefined;
}

const takes = "'none', 'host', a NetNamespace, or an object with ports, egress, dns and bandwidth";

/** undefined: nothing but a choice of the namespace, which `namespacesOf` makes. */
export function networkOf(network: unknown): NetworkSettings | undefined {
  if (network === undefined || network === 'none' || network === 'host') return undefined;
  if (network instanceof Namespace && network.type === 'net') return undefined;
  if (network === null || typeof network !== 'object' || Array.isArray(network) || network instanceof Namespace) throw optionError('network', takes, network);
  const options = record(network, 'network');
  onlyKeys(options, 'network', ['ports', 'egress', 'dns', 'bandwidth']);
  const { ports, egress, dns, bandwidth } = options;
  if (dns !== undefined && egress === undefined) throw optionError('network.dns', 'nothing without egress: nobody would ask', dns);
  return {
    ports: ports === undefined ? [] : list(ports, 'network.ports', portOf),
    egress: egress === undefined ? undefined : egressOf(egress),
    dns: dns === undefined ? new Map() : answersOf(record(dns, 'network.dns')),
    bandwidth: bandwidth === undefined ? undefined : ratesOf(bandwidth, ports !== undefined || egress !== undefined),
  };
}

function ratesOf(value: unknown, passes: boolean): Bandwidth {
  const bandwidth = checkBandwidth(value, 'network.bandwidth');
  for (const option of ['delayMs', 'lossPercent'] as const) {
    if (bandwidth[option] !== undefined)
      throw optionError(`network.bandwidth.${option}`, 'nothing without `bridge`: only a link delays and loses', bandwidth[option]);
  }
  if (!passes) throw optionError('network.bandwidth', 'nothing without `bridge`, `ports` or `egress`: nothing comes or goes', value);
  return bandwidth;
}

function egressOf(value: unknown): EgressSetting {
  if (value === 'deny') return AllowList.parse([], 'network.egress');
  if (typeof value === 'function') return value as (request: EgressRequest) => unknown;
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw optionError('network.egress', "'deny', { allow: [...] } or a function", value);
  onlyKeys(value, 'network.egress', ['allow']);
  return AllowList.parse(
    list((value as { allow?: unknown }).allow, 'network.egress.allow', (entry) => entry),
    'network.egress.allow',
  );
}

function answersOf(dns: Record<string, unknown>): Map<string, string> {
  return new Map(Object.entries(dns).map(([name, address]) => [name.toLowerCase().replace(/\.$/, ''), checkAddress(address, `network.dns.${name}`)]));
}

function portOf(value: unknown, option: string): PortSetting {
  const port = record(value, option);
  onlyKeys(port, option, ['host', 'guest', 'address', 'protocol']);
  return {
    host: checkPort(port['host'], `${option}.host`, 0),
    guest: checkPort(port['guest'], `${option}.guest`),
    address: port['address'] === undefined ? '127.0.0.1' : checkAddress(port['address'], `${option}.address`),
    protocol: port['protocol'] === undefined ? 'tcp' : oneOf(port['protocol'], `${option}.protocol`, ['tcp', 'udp']),
  };
}
