import { optionError } from '../../errors.js';
import { contains, type IpAddress, parseAddress, parseSubnet, type Subnet } from '../ip.js';

interface Entry {
  /** Exactly it, or with `below` everything below it. */
  readonly name?: string;
  readonly below?: boolean;
  readonly subnet?: Subnet;
  /** Without: every port. */
  readonly port?: number | undefined;
}

const takes = "a host, '*.domain', an address or a CIDR, each with or without ':port'";
const label = '[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?';
const nameForm = new RegExp(`^(\\*\\.)?(${label}(?:\\.${label})*)\\.?$`);

/** What may be reached: names with all that they resolve to, and networks. */
export class AllowList {
  readonly #entries: readonly Entry[];

  private constructor(entries: readonly Entry[]) {
    this.#entries = entries;
  }

  static parse(entries: readonly unknown[], option: string): AllowList {
    return new AllowList(entries.map((entry, index) => parseEntry(entry, `${option}[${index}]`)));
  }

  /** On whatever port: it may be asked for. */
  hasName(name: string): boolean {
    return this.#entries.some((entry) => matches(entry, name));
  }

  allowsName(name: string, port: number): boolean {
    return this.#entries.some((entry) => (entry.port === undefined || entry.port === port) && matches(entry, name));
  }

  allowsAddress(address: IpAddress, port: number): boolean {
    return this.#entries.some((entry) => entry.subnet !== undefined && (entry.port === undefined || entry.port === port) && contains(entry.subnet, address));
  }
}

function matches({ name, below }: Entry, asked: string): boolean {
  if (name === undefined) return false;
  return below ? asked.endsWith(`.${name}`) : asked === name;
}

function parseEntry(entry: unknown, option: string): Entry {
  if (typeof entry !== 'string') throw optionError(option, takes, entry);
  // '[fd00::]/8:443', '[::1]:443', 'fd00::/8'
  const bracketed = /^\[([^\]]+)\](\/\d+)?(?::(\d+))?$/.exec(entry);
  const plain = /^([^/:]+|[^/]+(?=\/)|[0-9a-f:.]+)(\/\d+)?(?::(\d+))?$/i.exec(entry);
  const [, host = '', prefix = '', digits] = bracketed ?? (parseAddress(entry) ? [entry, entry] : (plain ?? []));
  const port = digits === undefined ? undefined : Number(digits);
  if (port !== undefined && (port < 1 || port > 65535)) throw optionError(option, 'a port from 1 to 65535', entry);
  const subnet = parseSubnet(`${host}${prefix}`);
  if (subnet) return { subnet, port };
  const [, star, name] = (prefix === '' && !bracketed && nameForm.exec(host.toLowerCase())) || [];
  // '256.1.1.1' is no address, and no name either: RFC 3696, 2.
  if (name === undefined || name.length > 253 || /(^|\.)\d+$/.test(name)) throw optionError(option, takes, entry);
  return { name, below: star !== undefined, port };
}
