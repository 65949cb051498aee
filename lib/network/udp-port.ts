import * as dgram from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';
import { native } from '../native.js';
import * as k from '../plan/constants.js';
import { endpointText } from './address.js';
import { Flows } from './flows.js';
import type { InnerSockets } from './inner-sockets.js';
import type { PortSetting } from './options.js';
import { mayGo, type Paces } from './pace.js';
import { portError } from './tcp-port.js';

/** A UDP port of the host; each peer has a socket of its own inside, so that answers find their way. */
export class UdpPort {
  readonly #socket: dgram.Socket;
  readonly #guest: number;
  readonly #inside: Promise<InnerSockets>;
  readonly #paces: Paces;
  readonly #peers = new Flows<Promise<dgram.Socket>>(end);

  private constructor(socket: dgram.Socket, guest: number, inside: Promise<InnerSockets>, paces: Paces) {
    this.#socket = socket;
    this.#guest = guest;
    this.#inside = inside;
    this.#paces = paces;
    socket.on('message', (message, from) => this.#receive(message, from));
    // What could not be delivered to a peer (ECONNREFUSED by ICMP) is lost, as datagrams are.
    socket.on('error', () => {});
  }

  static async listen({ address, host, guest }: PortSetting, inside: Promise<InnerSockets>, paces: Paces): Promise<UdpPort> {
    const socket = dgram.createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    try {
      const bound = once(socket, 'listening');
      socket.bind({ address, port: host, exclusive: true });
      await bound;
    } catch (cause) {
      socket.close();
      throw portError(cause, address, host);
    }
    socket.unref();
    return new UdpPort(socket, guest, inside, paces);
  }

  get host(): number {
    return this.#socket.address().port;
  }

  close(): void {
    this.#socket.close();
    this.#peers.close();
  }

  #receive(message: Buffer, { address, port }: dgram.RemoteInfo): void {
    if (!mayGo(this.#paces.ingress, message.length)) return;
    const name = endpointText(address, port);
    const peer = this.#peers.heard(name, () => this.#open(address, port));
    peer.then(
      (socket) => {
        try {
          socket.send(message, this.#guest, '127.0.0.1');
        } catch {
          // Closed meanwhile.
        }
      },
      // Another datagram may have more luck.
      () => this.#peers.drop(name, peer),
    );
  }

  async #open(address: string, port: number): Promise<dgram.Socket> {
    const fd = await (await this.#inside).take({ family: k.AF_INET, type: k.SOCK_DGRAM });
    const socket = dgram.createSocket('udp4');
    socket.on('error', () => {});
    socket.on('message', (answer) => {
      if (!mayGo(this.#paces.egress, answer.length)) return;
      try {
        this.#socket.send(answer, port, address);
      } catch {
        // The port has been closed.
      }
    });
    socket.bind({ fd: native().handOver(fd), exclusive: true } as dgram.BindOptions);
    socket.unref();
    return socket;
  }
}

function end(peer: Promise<dgram.Socket>): void {
  peer.then(
    (open) => open.close(),
    () => {},
  );
}
