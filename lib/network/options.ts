// The `network` option, checked.

import { optionError } from '../errors.js';
import { Namespace } from '../namespace/namespace.js';
import { list, oneOf, onlyKeys, record } from '../spawn/validate.js';
import { checkAddress, checkPort } from './address.js';

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
}

const takes = "'none', 'host', a NetNamespace, or an object with ports, egress and dns";

/** undefined: nothing but a choice of the namespace, which `namespacesOf` makes. */
export function networkOf(network: unknown): NetworkSettings | undefined {
  if (network === undefined || network === 'none' || network === 'host') return undefined;
  if (network instanceof Namespace && network.type === 'net') return undefined;
  if (network === null || typeof network !== 'object' || Array.isArray(network) || network instanceof Namespace) throw optionError('network', takes, network);
  const options = record(network, 'network');
  onlyKeys(options, 'network', ['ports']);
  return { ports: options['ports'] === undefined ? [] : list(options['ports'], 'network.ports', portOf) };
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
