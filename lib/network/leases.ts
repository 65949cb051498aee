import { NetworkError } from '../errors.js';
import { addressAt, contains, formatAddress, formatSubnet, type IpAddress, numberOf, type Subnet } from './ip.js';

/** That of the bridge itself, and what leads out of the subnet. */
export const gatewayNumber = 1;

/** Addresses that are handed out: the lowest that is free, so that the same program gets the same ones each time. */
export class Leases {
  readonly #pools: readonly { readonly subnet: Subnet; readonly taken: Set<number>; readonly last: number }[];

  constructor(subnets: readonly Subnet[]) {
    this.#pools = subnets.map((subnet) => {
      const count = 2 ** Math.min(32, subnet.bytes.length * 8 - subnet.prefix);
      // The last one of IPv4 is that of all.
      return { subnet, taken: new Set([gatewayNumber]), last: subnet.family === 4 ? count - 2 : count - 1 };
    });
  }

  /** One of each subnet. `wanted` is that of its subnet. */
  take(wanted?: IpAddress): IpAddress[] {
    const chosen = this.#pools.map((pool) => {
      const number = wanted && contains(pool.subnet, wanted) ? numberOf(pool.subnet, wanted) : lowestFree(pool);
      if (number === undefined) {
        throw new NetworkError('ERR_CLOISTER_NETWORK', `${formatSubnet(pool.subnet)} has no address left`, {
          step: 'choose an address',
          hint: 'Give the bridge a larger subnet.',
        });
      }
      if (pool.taken.has(number)) {
        const address = formatAddress(addressAt(pool.subnet, number));
        throw new NetworkError('ERR_CLOISTER_NETWORK', `${address} is in use on this bridge`, {
          step: 'choose an address',
          path: address,
          hint: number === gatewayNumber ? 'It is that of the bridge itself.' : 'Leave `address` out to get one that is free.',
        });
      }
      return { pool, number };
    });
    for (const { pool, number } of chosen) pool.taken.add(number);
    return chosen.map(({ pool, number }) => addressAt(pool.subnet, number));
  }

  give(addresses: readonly IpAddress[]): void {
    for (const { subnet, taken } of this.#pools) for (const address of addresses) if (contains(subnet, address)) taken.delete(numberOf(subnet, address));
  }
}

function lowestFree({ taken, last }: { readonly taken: ReadonlySet<number>; readonly last: number }): number | undefined {
  for (let number = gatewayNumber + 1; number <= last; number++) if (!taken.has(number)) return number;
  return undefined;
}

/** Of whoever has that address: what takes an address over is then known by the same one to all who have remembered it. */
export function macFor(subnet: Subnet, address: IpAddress): string {
  const number = numberOf(subnet, address) % 2 ** 32;
  // Locally administered: IEEE 802, 8.4.
  return `02:63:${number
    .toString(16)
    .padStart(8, '0')
    .replace(/..(?=.)/g, '$&:')}`;
}
