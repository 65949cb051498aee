import { IsolationError } from '../errors.js';
import { enter } from '../namespace/enter.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import type { Slot } from '../plan/steps.js';
import { int32 } from '../plan/structs.js';
import type { Network } from './netlink/socket.js';

export interface SocketKind {
  /** AF_INET or AF_INET6 */
  readonly family: number;
  /** SOCK_STREAM or SOCK_DGRAM */
  readonly type: number;
}

/** One visit makes so many at the most; a plan has 512 slots. */
const most = 256;

interface Waiting extends SocketKind {
  resolve(fd: number): void;
  reject(error: unknown): void;
}

/**
 * Sockets of a network namespace, as descriptors of ours. socket(2) puts one in the namespace of whoever calls it, and there it
 * stays, whoever binds, connects or uses it later.
 *
 * An ordinary user's visit costs a copy of our page tables (namespace/enter.ts), so all that are wanted meanwhile are made by the next.
 */
export class InnerSockets {
  readonly #network: Network;
  #waiting: Waiting[] = [];
  #visiting = false;
  #closed = false;

  constructor(network: Network) {
    this.#network = network;
  }

  /** One descriptor of our table, the caller's from now on. */
  take(kind: SocketKind): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ...kind, resolve, reject });
      if (!this.#visiting) void this.#visitAll();
    });
  }

  /** Nothing more is made. */
  close(): void {
    this.#closed = true;
  }

  async #visitAll(): Promise<void> {
    this.#visiting = true;
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, most);
      try {
        if (this.#closed) throw new IsolationError('ERR_CLOISTER_DISPOSED', 'this network has been closed');
        const fds = await makeSockets(this.#network, batch);
        for (const [index, { resolve }] of batch.entries()) resolve(fds[index] as number);
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#visiting = false;
  }
}

async function makeSockets(network: Network, kinds: readonly SocketKind[]): Promise<number[]> {
  const plan = new PlanBuilder();
  enter(plan, network);
  plan.label('make a socket inside');
  const slots = kinds.map((kind) => openSocket(plan, kind));
  const fdOf = await runPlan(plan);
  return slots.map(fdOf);
}

function openSocket(plan: PlanBuilder, { family, type }: SocketKind): Slot {
  const slot = plan.open('socket', 'socket', [family, type | k.SOCK_CLOEXEC | k.SOCK_NONBLOCK, 0]);
  plan.keep(slot);
  return slot;
}

/** One that is bound, too: to ports below 1024 by whoever has CAP_NET_BIND_SERVICE in there, ip(7). */
export async function bindInside(network: Network, kind: SocketKind, address: Uint8Array, where: string): Promise<number> {
  const plan = new PlanBuilder();
  enter(plan, network);
  plan.label('make a socket inside');
  const slot = openSocket(plan, kind);
  // As Node's own servers have it: a port whose last connection is in TIME_WAIT can be taken (uv__tcp_bind).
  if (kind.type === k.SOCK_STREAM) plan.add('setsockopt', [slot, k.SOL_SOCKET, k.SO_REUSEADDR, int32(1)]);
  plan.label(`bind to ${where} inside`).add('bind', [slot, address]);
  return (await runPlan(plan))(slot);
}
