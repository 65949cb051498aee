import * as dgram from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';
import { native } from '../../native.js';
import { endpointText, socketAddress } from '../address.js';
import { Flows } from '../flows.js';
import { mayGo, type Paces } from '../pace.js';
import type { Asked, Gate } from './gate.js';
import { port as dnsPort } from './inside-addresses.js';
import { addressesOf, Barred } from './outside.js';
import { datagram, type End, unreachable } from './packets.js';
import { addressOf } from './policy.js';

/** While a policy thinks about the first: bytes. */
const mostWaiting = 65_536;

/** One flow, allowed or denied. */
interface Peer {
  /** undefined: denied. */
  socket: dgram.Socket | undefined;
  waiting: Buffer[] | undefined;
}

/** Every datagram of a sandbox to anywhere. Questions of DNS are answered here; others go where the policy lets them. */
export class UdpWay {
  readonly #gate: Gate;
  readonly #datagrams: { close(): void };
  readonly #raw: number;
  readonly #paces: Paces;
  readonly #peers = new Flows<Peer>(({ socket }) => socket?.close());
  #closed = false;

  /** Takes both descriptors. */
  constructor(fd: number, raw: number, gate: Gate, paces: Paces) {
    this.#gate = gate;
    this.#paces = paces;
    this.#raw = raw;
    this.#datagrams = new (native().Datagrams)(fd, (data, from, fromPort, to, toPort) => {
      this.#receive(data, { protocol: 'udp', from, fromPort, to, toPort });
    });
  }

  close(): void {
    this.#closed = true;
    this.#datagrams.close();
    native().close(this.#raw);
    this.#peers.close();
  }

  #receive(data: Buffer, asked: Asked): void {
    if (this.#closed) return;
    if (asked.toPort === dnsPort) {
      void this.#gate.answer(data, asked).then((answer) => answer && this.#reply(asked, answer));
      return;
    }
    const name = `${endpointText(asked.from, asked.fromPort)} ${endpointText(asked.to, asked.toPort)}`;
    const peer = this.#peers.heard(name, () => {
      const begun: Peer = { socket: undefined, waiting: [] };
      void this.#decide(name, begun, asked);
      return begun;
    });
    if (!peer.socket && !peer.waiting) this.#refuse(asked);
    else if (!mayGo(this.#paces.egress, data.length)) return;
    else if (peer.socket) peer.socket.send(data);
    else if (peer.waiting && peer.waiting.reduce((sum, { length }) => sum + length, data.length) <= mostWaiting) peer.waiting.push(data);
  }

  async #decide(name: string, peer: Peer, asked: Asked): Promise<void> {
    try {
      const target = await this.#target(asked);
      const socket = target && (await this.#open(target, asked));
      if (!this.#peers.has(name, peer)) socket?.close();
      else peer.socket = socket;
    } catch (error) {
      const hostname = this.#gate.hostname(asked.to);
      if (error instanceof Barred) await this.#gate.deny(asked, { ...(hostname === undefined ? {} : { hostname }), address: error.address });
    }
    const waiting = peer.waiting ?? [];
    peer.waiting = undefined;
    if (!peer.socket) this.#refuse(asked);
    else for (const data of waiting) peer.socket.send(data);
  }

  async #target(asked: Asked): Promise<{ address: string; port: number } | undefined> {
    const { verdict, hostname } = await this.#gate.decide(asked);
    if (verdict === 'denied' || typeof verdict === 'function') return undefined;
    const { host, port = asked.toPort } = verdict === 'asked' || 'path' in verdict ? {} : verdict;
    const address = host ?? (hostname === undefined ? asked.to : (await addressesOf(hostname, port, this.#gate.policy))[0]);
    return address === undefined ? undefined : { address, port };
  }

  async #open({ address, port }: { address: string; port: number }, asked: Asked): Promise<dgram.Socket> {
    const socket = dgram.createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    socket.on('message', (answer) => mayGo(this.#paces.ingress, answer.length) && this.#reply(asked, answer));
    // Told inside as it was told to us.
    socket.on('error', () => this.#refuse(asked));
    socket.unref();
    try {
      const connected = once(socket, 'connect');
      socket.connect(port, address);
      await connected;
    } catch (error) {
      socket.close();
      throw error;
    }
    return socket;
  }

  #reply(asked: Asked, data: Uint8Array): void {
    if (this.#closed) return;
    const { from, to } = ends(asked);
    const packet = datagram(to, from, data);
    if (packet) native().sendPacket(this.#raw, packet, socketAddress(asked.from, 0));
  }

  #refuse(asked: Asked): void {
    if (this.#closed) return;
    const { from, to } = ends(asked);
    native().sendPacket(this.#raw, unreachable(to, from), socketAddress(asked.from, 0));
  }
}

function ends({ from, fromPort, to, toPort }: Asked): { from: End; to: End } {
  return { from: { address: addressOf(from), port: fromPort }, to: { address: addressOf(to), port: toPort } };
}
