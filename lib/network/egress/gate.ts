import type { Denial } from '../../spawn/types.js';
import type { IpAddress } from '../ip.js';
import type { EgressRequest } from '../types.js';
import { answerTo, codes, parseQuestion, refusalOf, types } from './dns-message.js';
import { isStandIn } from './inside-addresses.js';
import { addressOf, type Policy, plainAddress, type Verdict } from './policy.js';
import { StandIns } from './stand-ins.js';
import type { Flow, Who } from './who.js';

export type Asked = Flow;

/** Addresses of those that are reached without being decided about, by their name in lower case. */
export type Neighbours = (name: string) => readonly IpAddress[];

/** What the ways out of one sandbox have in common: its policy, the names it has asked for, and who hears of denials. */
export class Gate {
  readonly policy: Policy;
  readonly #names = new StandIns();
  readonly #neighbours: Neighbours;
  readonly #tell: (denial: Denial) => void;
  readonly #who: Who;

  constructor(policy: Policy, neighbours: Neighbours, who: Who, tell: (denial: Denial) => void) {
    this.policy = policy;
    this.#neighbours = neighbours;
    this.#who = who;
    this.#tell = tell;
  }

  hostname(address: string): string | undefined {
    return this.#names.name(plainAddress(address));
  }

  /** What the policy says; what it denies has been told. */
  async decide(asked: Asked): Promise<{ verdict: Verdict; hostname: string | undefined }> {
    const hostname = this.hostname(asked.to);
    // One of ours that no name has: to let it out would be to reach somebody else's network of that number.
    if (hostname === undefined && isStandIn(addressOf(asked.to))) {
      await this.deny(asked, {});
      return { verdict: 'denied', hostname };
    }
    const request: EgressRequest = { protocol: asked.protocol, address: plainAddress(asked.to), port: asked.toPort };
    if (hostname !== undefined) request.hostname = hostname;
    // Looked up where somebody may ask for it, while the program still waits.
    const pid = this.policy.asks ? await this.#who.has(asked) : undefined;
    if (pid !== undefined) request.pid = pid;
    const verdict = await this.policy.decide(request);
    if (verdict === 'denied') await this.deny(asked, hostname === undefined ? {} : { hostname }, pid);
    return { verdict, hostname };
  }

  /** Tells it, before whoever is denied is: then it still is there to be found. `said`: what is known better than by the address. */
  async deny(asked: Asked, said: Pick<Denial, 'hostname' | 'address'>, known?: number): Promise<void> {
    const pid = known ?? (await this.#who.has(asked));
    this.#tell({ kind: 'egress', ...(pid === undefined ? {} : { pid }), address: plainAddress(asked.to), port: asked.toPort, ...said });
  }

  /** The answer to a question of DNS, if there is one. Nobody but us is asked. */
  async answer(message: Buffer, asked: Asked): Promise<Buffer | undefined> {
    const question = parseQuestion(message);
    if (question === undefined) return undefined;
    if ('code' in question) {
      if (question.code === codes.nxDomain) await this.#denyName('(no host name)', asked);
      return refusalOf(question.id, question.code);
    }
    const { name, type } = question;
    const family = type === types.a ? 4 : type === types.aaaa ? 6 : undefined;
    // RFC 6761, 6.3
    if (name === 'localhost' || name.endsWith('.localhost')) return answerTo(question, codes.noError, family && loopback[family]);
    const near = this.#neighbours(name);
    // They come and go, and their addresses are others' then.
    if (near.length > 0)
      return answerTo(
        question,
        codes.noError,
        near.find((address) => address.family === family),
        0,
      );
    if (!this.policy.mayAsk(name)) {
      await this.#denyName(name, asked);
      return answerTo(question, codes.nxDomain);
    }
    if (family === undefined) return answerTo(question, codes.noError);
    const address = this.#names.of(name, family);
    if (address === undefined) {
      await this.#denyName(name, asked);
      return answerTo(question, codes.servFail);
    }
    return answerTo(question, codes.noError, address);
  }

  async #denyName(hostname: string, asked: Asked): Promise<void> {
    const pid = await this.#who.has(asked);
    this.#tell({ kind: 'dns', ...(pid === undefined ? {} : { pid }), hostname, address: plainAddress(asked.to), port: asked.toPort });
  }
}

const loopback = {
  4: { family: 4, bytes: Uint8Array.of(127, 0, 0, 1) },
  6: { family: 6, bytes: Uint8Array.from({ length: 16 }, (_, index) => Number(index === 15)) },
} as const;
