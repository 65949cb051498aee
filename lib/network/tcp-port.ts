import { once } from 'node:events';
import * as net from 'node:net';
import type { NetworkError } from '../errors.js';
import { endpointText } from './address.js';
import type { InnerSockets } from './inner-sockets.js';
import { connectInside, networkError } from './inside.js';
import type { PortSetting } from './options.js';
import type { Paces } from './pace.js';
import { relay, reset } from './relay.js';

/** A port of the host whose connections are made again inside. */
export class TcpPort {
  readonly #server: net.Server;
  readonly #guest: number;
  /** Once the program runs. */
  readonly #inside: Promise<InnerSockets>;
  readonly #paces: Paces;
  readonly #open = new Set<net.Socket>();

  private constructor(server: net.Server, guest: number, inside: Promise<InnerSockets>, paces: Paces) {
    this.#server = server;
    this.#guest = guest;
    this.#inside = inside;
    this.#paces = paces;
    server.on('connection', (socket: net.Socket) => void this.#forward(socket));
  }

  static async listen({ address, host, guest }: PortSetting, inside: Promise<InnerSockets>, paces: Paces): Promise<TcpPort> {
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true });
    server.listen({ host: address, port: host, exclusive: true });
    try {
      await once(server, 'listening');
    } catch (cause) {
      throw portError(cause, address, host);
    }
    // The program's process is what the event loop waits for.
    server.unref();
    return new TcpPort(server, guest, inside, paces);
  }

  get host(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  /** New connections are refused at once; what the program has said on the others is still told. */
  close(): void {
    this.#server.close();
    for (const socket of this.#open) socket.unref();
  }

  async #forward(socket: net.Socket): Promise<void> {
    this.#track(socket);
    socket.on('error', () => {});
    try {
      const guest = await this.#connect();
      if (socket.destroyed) {
        reset(guest);
        return;
      }
      this.#track(guest);
      relay(socket, guest, { paceOfOne: this.#paces.ingress, paceOfOther: this.#paces.egress });
    } catch {
      // As if nobody were listening.
      reset(socket);
    }
  }

  async #connect(): Promise<net.Socket> {
    const sockets = await this.#inside;
    try {
      return await connectInside(sockets, { host: '127.0.0.1', port: this.#guest }, true);
    } catch (error) {
      // A server that listens on `localhost` may be on either.
      if ((error as NetworkError).errnoName !== 'ECONNREFUSED') throw error;
      return await connectInside(sockets, { host: '::1', port: this.#guest }, true);
    }
  }

  #track(socket: net.Socket): void {
    this.#open.add(socket);
    socket.on('close', () => this.#open.delete(socket));
  }
}

export function portError(cause: unknown, address: string, port: number): unknown {
  const { errno, syscall = 'listen' } = cause as NodeJS.ErrnoException;
  if (errno === undefined) return cause;
  return networkError(errno, { step: `publish a port on ${endpointText(address, port)}`, syscall, address, port }, cause);
}
