import { optionError } from '../errors.js';
import * as check from '../spawn/validate.js';
import { type Bandwidth, checkBandwidth } from './bandwidth.js';
import { contains, formatSubnet, type IpAddress, parseAddress, parseSubnet, type Subnet } from './ip.js';

export interface BridgeOptions {
  readonly name: string | undefined;
  readonly subnets: readonly Subnet[];
  readonly masquerade: boolean;
}

export interface AttachOptions {
  readonly address: IpAddress | undefined;
  readonly mac: string | undefined;
  readonly bandwidth: Bandwidth | undefined;
  readonly hostname: string | undefined;
  /** What it sends stays in the subnet: port-filter.ts. */
  readonly confined?: boolean | undefined;
}

export function checkBridge(value: unknown): BridgeOptions {
  const options = check.record(value, 'options');
  check.onlyKeys(options, '', ['name', 'subnet', 'masquerade']);
  const { name, subnet, masquerade } = options;
  // dev_valid_name, and IFNAMSIZ with its NUL.
  if (name !== undefined && (typeof name !== 'string' || !/^[A-Za-z0-9_.-]{1,15}$/.test(name) || name === '.' || name === '..'))
    throw optionError('name', '1 to 15 letters, digits, dots, dashes or underscores', name);
  const subnets = Array.isArray(subnet) ? check.list(subnet, 'subnet', subnetOf) : [subnetOf(subnet, 'subnet')];
  if (subnets.length === 0 || new Set(subnets.map(({ family }) => family)).size !== subnets.length)
    throw optionError('subnet', 'one of IPv4, one of IPv6, or one of each', subnet);
  return { name: name as string | undefined, subnets, masquerade: masquerade === undefined ? false : check.flag(masquerade, 'masquerade') };
}

function subnetOf(value: unknown, option: string): Subnet {
  const subnet = typeof value === 'string' ? parseSubnet(value) : undefined;
  const bits = subnet && subnet.bytes.length * 8;
  if (!subnet || !(value as string).includes('/')) throw optionError(option, "a network, such as '10.9.0.0/24' or 'fd09::/64'", value);
  if (subnet.prefix < 8 || subnet.prefix > (bits as number) - 2)
    throw optionError(option, `a network of 8 to ${(bits as number) - 2} bits, with room for two`, value);
  const [base = ''] = (value as string).split('/');
  if (parseAddress(base)?.bytes.some((byte, index) => byte !== subnet.bytes[index])) throw optionError(option, `a network: ${formatSubnet(subnet)}`, value);
  const first = subnet.bytes[0] as number;
  const special =
    subnet.family === 4
      ? first === 0 || first === 127 || first >= 224
      : first === 0xff || first === 0 || (first === 0xfe && ((subnet.bytes[1] as number) & 0xc0) === 0x80);
  if (special) throw optionError(option, 'a network of ordinary addresses: not of loopback, link-local or multicast ones', value);
  return subnet;
}

export function checkAttach(value: unknown, bridge: { readonly subnets: readonly Subnet[] }): AttachOptions {
  const options = check.record(value, 'options');
  check.onlyKeys(options, '', ['address', 'mac', 'bandwidth', 'hostname']);
  const { address, mac, bandwidth, hostname } = options;
  if (hostname !== undefined && (typeof hostname !== 'string' || !/^[A-Za-z0-9_.-]{1,64}$/.test(hostname)))
    throw optionError('hostname', 'at most 64 letters, digits, dots, dashes or underscores', hostname);
  return { ...seatOptions({ address, mac, bandwidth }, '', bridge), hostname: hostname as string | undefined };
}

/** Of `attach`, and of the `network` of a spawn: `prefix` is 'network.' there. */
export function seatOptions(
  { address, mac, bandwidth }: { readonly address?: unknown; readonly mac?: unknown; readonly bandwidth?: unknown },
  prefix: string,
  { subnets }: { readonly subnets: readonly Subnet[] },
): Omit<AttachOptions, 'hostname' | 'confined'> {
  const parsed = typeof address === 'string' ? parseAddress(address) : undefined;
  const network = parsed && subnets.find((subnet) => contains(subnet, parsed));
  const ends = parsed &&
    network?.family === 4 && [network.bytes, network.bytes.map((byte, index) => byte | (0xff >> Math.min(8, Math.max(0, network.prefix - index * 8))))];
  const isEnd = parsed && (ends || []).some((end) => end.every((byte, index) => byte === parsed.bytes[index]));
  if (address !== undefined && (!network || isEnd))
    throw optionError(`${prefix}address`, `an address of the bridge's subnet, ${subnets.map(formatSubnet).join(' or ')}`, address);
  // The lowest bit of the first byte is that of groups: IEEE 802, 8.2.
  if (mac !== undefined && (typeof mac !== 'string' || !/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/i.test(mac) || /^[0:]+$/.test(mac)))
    throw optionError(`${prefix}mac`, "an address of one link, such as '02:63:00:00:00:07'", mac);
  return {
    address: parsed,
    mac: mac as string | undefined,
    bandwidth: bandwidth === undefined ? undefined : checkBandwidth(bandwidth, `${prefix}bandwidth`),
  };
}
