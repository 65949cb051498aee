import { formatAddress, type IpAddress, parseAddress } from '../ip.js';
import type { EgressRequest, EgressTarget } from '../types.js';
import type { AllowList } from './allow-list.js';

export type EgressSetting = AllowList | ((request: EgressRequest) => unknown);

/** `asked`: to where it was going. */
export type Verdict = 'denied' | 'asked' | EgressTarget;

/** What may leave: a list, or a function's word for each connection. */
export class Policy {
  readonly #setting: EgressSetting;
  readonly #fixed: ReadonlyMap<string, string>;

  constructor(setting: EgressSetting, fixed: ReadonlyMap<string, string>) {
    this.#setting = setting;
    this.#fixed = fixed;
  }

  /** Whether its pid is worth being looked up. */
  get asks(): boolean {
    return typeof this.#setting === 'function';
  }

  /** To ask for a name sends nothing anywhere, so a function need not be asked before there is a connection. */
  mayAsk(name: string): boolean {
    return typeof this.#setting === 'function' || this.#setting.hasName(name);
  }

  /** The address that a name was given by the caller of this library: trusted, whatever it is. */
  fixedAddress(name: string): string | undefined {
    return this.#fixed.get(name);
  }

  /** A network that was named as one may be reached by names as well. */
  allowsAddress(address: IpAddress, port: number): boolean {
    return typeof this.#setting !== 'function' && this.#setting.allowsAddress(address, port);
  }

  async decide(request: EgressRequest): Promise<Verdict> {
    const setting = this.#setting;
    if (typeof setting !== 'function') {
      // Datagrams name nobody that could be compared (QUIC): a function may let them pass, one by one.
      if (request.protocol === 'udp') return 'denied';
      const { hostname, port, address } = request;
      const allowed = hostname === undefined ? setting.allowsAddress(addressOf(address), port) : setting.allowsName(hostname, port);
      return allowed ? 'asked' : 'denied';
    }
    try {
      const answer = await setting(request);
      if (answer === true) return 'asked';
      if (isTarget(answer, request.protocol)) return answer;
      if (answer !== false) process.emitWarning(`an egress function answers with true, false or a target; what it gave is taken as false`, 'CloisterWarning');
    } catch (error) {
      process.emitWarning(
        `an egress function failed, so the connection is denied: ${error instanceof Error ? error.message : String(error)}`,
        'CloisterWarning',
      );
    }
    return 'denied';
  }
}

function isTarget(answer: unknown, protocol: 'tcp' | 'udp'): answer is EgressTarget {
  if (typeof answer === 'function') return protocol === 'tcp';
  if (answer === null || typeof answer !== 'object') return false;
  const { path, host, port } = answer as { path?: unknown; host?: unknown; port?: unknown };
  if (path !== undefined) return typeof path === 'string' && path !== '' && protocol === 'tcp';
  if (host === undefined && port === undefined) return false;
  const isHost = host === undefined || (typeof host === 'string' && host !== '');
  return isHost && (port === undefined || (typeof port === 'number' && Number.isInteger(port) && port > 0 && port < 65536));
}

/** ::ffff:10.0.0.1 is 10.0.0.1 by another name: RFC 4291, 2.5.5.2. */
export function addressOf(text: string): IpAddress {
  const address = parseAddress(text) as IpAddress;
  const { bytes } = address;
  const mapped = address.family === 6 && bytes[10] === 255 && bytes[11] === 255 && bytes.subarray(0, 10).every((byte) => byte === 0);
  return mapped ? { family: 4, bytes: bytes.slice(12) } : address;
}

export const plainAddress = (text: string): string => formatAddress(addressOf(text));
