import { checked, native } from '../../native.js';
import type { Denial } from '../../spawn/types.js';
import type { Paces } from '../pace.js';
import { Gate, type Neighbours } from './gate.js';
import { sockets } from './interception.js';
import type { Policy } from './policy.js';
import { TcpWay } from './tcp-way.js';
import { UdpWay } from './udp-way.js';
import { Who } from './who.js';

/** The ways out of one sandbox, which all lead through this process. */
export class Egress {
  readonly #policy: Policy;
  readonly #neighbours: Neighbours;
  readonly #paces: Paces;
  /** Until the child has sent what it has opened. */
  #channel: number;
  /** For the plan, which takes it. */
  readonly theirs: number;
  readonly #ways: { close(): void }[] = [];

  constructor(policy: Policy, neighbours: Neighbours, paces: Paces) {
    this.#policy = policy;
    this.#neighbours = neighbours;
    this.#paces = paces;
    [this.#channel, this.theirs] = checked(native().socketPair(), 'socketpair', 'make the way out') as [number, number];
  }

  /** The program runs: all has been sent. `root`: the process that all others inside descend from. */
  begin(root: number, tell: (denial: Denial) => void): void {
    const [diagnosis, ...fds] = sockets.map(() => native().receiveDescriptor(this.#channel)).filter((fd) => fd >= 0);
    this.#closeChannel();
    if (diagnosis === undefined) return;
    const who = new Who(diagnosis, root);
    const gate = new Gate(this.#policy, this.#neighbours, who, tell);
    this.#ways.push(who);
    for (let at = 0; at + 2 < fds.length; at += 3) {
      const [tcp, udp, raw] = fds.slice(at, at + 3) as [number, number, number];
      this.#ways.push(new TcpWay(native().handOver(tcp), gate, this.#paces), new UdpWay(udp, raw, gate, this.#paces));
    }
  }

  close(): void {
    this.#closeChannel();
    for (const way of this.#ways.splice(0)) way.close();
  }

  #closeChannel(): void {
    if (this.#channel >= 0) native().close(this.#channel);
    this.#channel = -1;
  }
}
