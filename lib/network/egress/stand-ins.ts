import { formatAddress, type IpAddress } from '../ip.js';
import { mostNames, standIn } from './inside-addresses.js';

/**
 * An address for each name that was asked for. So which name a connection means is known, whatever else is at the name's real
 * address, and no answer of a name server of the world's can change where it leads. Never given to another name.
 */
export class StandIns {
  readonly #numbers = new Map<string, number>();
  readonly #names = new Map<string, string>();

  /** undefined: this sandbox has asked for too many names. */
  of(name: string, family: 4 | 6): IpAddress | undefined {
    let number = this.#numbers.get(name);
    if (number === undefined) {
      if (this.#numbers.size >= mostNames) return undefined;
      number = this.#numbers.size;
      this.#numbers.set(name, number);
      for (const each of [4, 6] as const) this.#names.set(formatAddress(standIn(each, number)), name);
    }
    return standIn(family, number);
  }

  name(address: string): string | undefined {
    return this.#names.get(address);
  }
}
