import { once } from 'node:events';
import * as net from 'node:net';
import { type Paces, pipeAtPace } from '../pace.js';
import { relay, reset } from '../relay.js';
import type { EgressTarget } from '../types.js';
import { longest, namesIn, type Said } from './first-bytes.js';
import type { Asked, Gate } from './gate.js';
import { port as dnsPort } from './inside-addresses.js';
import { addressesOf, Barred, connectTo } from './outside.js';

/** Connections of one sandbox at a time; each takes two descriptors of this process, and two more for a direction that has something to wait for. */
export const mostConnections = 4096;

/** Every TCP connection of a sandbox to anywhere, accepted in the place of whoever it was meant for. */
export class TcpWay {
  readonly #gate: Gate;
  readonly #paces: Paces;
  readonly #server: net.Server;
  readonly #open = new Set<net.Socket>();
  /** Those that are no sockets of Node's any more. */
  #relayed = 0;
  /** Their other ends. */
  readonly #outer = new Set<net.Socket>();
  /** Those that functions have. */
  readonly #handed = new Set<net.Socket>();

  constructor(fd: number, gate: Gate, paces: Paces) {
    this.#gate = gate;
    this.#paces = paces;
    this.#server = net.createServer({ allowHalfOpen: true });
    this.#server.on('connection', (socket: net.Socket) => this.#accept(socket));
    // What cannot be accepted for want of descriptors stays in the queue.
    this.#server.on('error', () => {});
    this.#server.listen({ fd, exclusive: true } as net.ListenOptions);
    this.#server.unref();
  }

  close(): void {
    this.#server.close();
    for (const socket of [...this.#open, ...this.#outer]) socket.unref();
    // The other end is gone: what nobody has begun to read, nobody will.
    for (const socket of this.#handed) if (socket.readableFlowing === null && socket.listenerCount('readable') === 0) socket.destroySoon();
  }

  #accept(socket: net.Socket): void {
    const { localAddress: to, localPort: toPort, remoteAddress: from, remotePort: fromPort } = socket;
    socket.on('error', () => {});
    // Reset before we came to it.
    if (to === undefined || toPort === undefined || from === undefined || fromPort === undefined) {
      socket.destroy();
      return;
    }
    const asked: Asked = { protocol: 'tcp', from, fromPort, to, toPort };
    track(this.#open, socket);
    if (this.#open.size + this.#relayed > mostConnections) void this.#gate.deny(asked, {}).then(() => reset(socket));
    else if (toPort === dnsPort) void answerQuestions(socket, (message) => this.#gate.answer(message, asked));
    else void this.#lead(socket, asked);
  }

  async #lead(socket: net.Socket, asked: Asked): Promise<void> {
    try {
      const { verdict, hostname } = await this.#gate.decide(asked);
      if (verdict === 'denied') reset(socket);
      else if (verdict === 'asked') await this.#connect(socket, asked, hostname);
      else await this.#redirect(socket, asked, hostname, verdict);
    } catch (error) {
      if (error instanceof Barred) await this.#gate.deny(asked, { ...named(this.#gate.hostname(asked.to)), address: error.address });
      // Refused, unreachable, no such name: as it would have been told, if later.
      reset(socket);
    }
  }

  async #connect(socket: net.Socket, asked: Asked, hostname: string | undefined): Promise<void> {
    const port = asked.toPort;
    const addresses = hostname === undefined ? [asked.to.replace(/^::ffff:(?=\d+\.)/i, '')] : await addressesOf(hostname, port, this.#gate.policy);
    const outside = await this.#outside(socket, { addresses, port });
    if (!outside) return;
    if (hostname === undefined) this.#relay(socket, outside);
    else
      relayIfTrue(
        socket,
        outside,
        this.#paces,
        hostname,
        (said) => this.#relay(socket, outside, said),
        (lie) => this.#gate.deny(asked, { hostname: lie }),
      );
  }

  #relay(socket: net.Socket, outside: net.Socket, said?: Buffer): void {
    this.#relayed++;
    relay(socket, outside, { said, onEnd: () => this.#relayed--, paceOfOne: this.#paces.egress, paceOfOther: this.#paces.ingress });
  }

  async #redirect(socket: net.Socket, asked: Asked, hostname: string | undefined, target: EgressTarget): Promise<void> {
    if (typeof target === 'function') {
      // From now on theirs, as a server's are.
      socket.allowHalfOpen = false;
      track(this.#handed, socket);
      target(socket);
      return;
    }
    if ('path' in target) {
      const outside = await this.#outside(socket, target);
      if (outside) this.#relay(socket, outside);
      return;
    }
    const { host, port = asked.toPort } = target;
    // The host that a function names is its own choice, so it may be this one.
    const addresses = host !== undefined ? [host] : hostname === undefined ? [asked.to] : await addressesOf(hostname, port, this.#gate.policy);
    const outside = await this.#outside(socket, { addresses, port });
    if (outside) this.#relay(socket, outside);
  }

  /** undefined: who wanted it has gone meanwhile. */
  async #outside(socket: net.Socket, target: Parameters<typeof connectTo>[0]): Promise<net.Socket | undefined> {
    const outside = await connectTo(target);
    outside.on('error', () => {});
    if (socket.destroyed) {
      outside.destroy();
      return undefined;
    }
    track(this.#outer, outside);
    return outside;
  }
}

function track(set: Set<net.Socket>, socket: net.Socket): void {
  set.add(socket);
  socket.on('close', () => set.delete(socket));
}

const named = (hostname: string | undefined): { hostname?: string } => (hostname === undefined ? {} : { hostname });

/** Nothing of what is said leaves before it is known whom it names, if anybody; what the other side says arrives meanwhile. */
function relayIfTrue(
  socket: net.Socket,
  outside: net.Socket,
  { ingress }: Paces,
  hostname: string,
  onTruth: (said: Buffer) => void,
  onLie: (name: string) => Promise<void>,
): void {
  let said = Buffer.alloc(0);
  const end = (lie: string): void => {
    stop();
    void onLie(lie).then(() => {
      reset(socket);
      reset(outside);
    });
  };
  /** False: whom it names is still to come. */
  const judge = (names: Said): boolean => {
    if (names === 'more') return false;
    const lie = names.find((name) => name !== hostname);
    if (lie !== undefined) end(lie);
    else {
      stop();
      arriveNoMore();
      // What the other side has said before may still be waiting to be read.
      socket.pause();
      if (socket.writableLength === 0) onTruth(said);
      else socket.write('', () => onTruth(said));
    }
    return true;
  };
  const onData = (chunk: Buffer): void => {
    said = Buffer.concat([said, chunk]);
    if (!judge(namesIn(said)) && said.length > longest) end('(a beginning without an end)');
  };
  // A server might take the end for the end of the line.
  const onEnd = (): void => {
    const names = said.length === 0 ? [] : namesIn(Buffer.concat([said, Buffer.from('\r\n\r\n')]));
    if (!judge(names)) {
      // It has given up by itself, before it named anybody.
      stop();
      reset(socket);
      reset(outside);
    }
  };
  const onClose = (): void => {
    stop();
    reset(outside);
  };
  const onGone = (): void => {
    stop();
    if (outside.readableEnded && !outside.errored) socket.end();
    else reset(socket);
  };
  const unpipe = (): void => void outside.unpipe(socket);
  const stop = (): void => {
    socket.off('data', onData).off('end', onEnd).off('close', onClose);
    outside.off('close', onGone);
  };
  socket.on('data', onData).on('end', onEnd).on('close', onClose);
  outside.on('close', onGone);
  const arriveNoMore = ingress ? pipeAtPace(outside, socket, ingress) : unpipe;
  if (!ingress) outside.pipe(socket);
}

/** Each with its length before it: RFC 7766. One after the other, and no faster than they are read. */
async function answerQuestions(socket: net.Socket, answer: (message: Buffer) => Promise<Buffer | undefined>): Promise<void> {
  let rest = Buffer.alloc(0);
  try {
    for await (const chunk of socket) {
      rest = Buffer.concat([rest, chunk as Buffer]);
      while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
        const size = rest.readUInt16BE(0);
        const reply = await answer(rest.subarray(2, 2 + size));
        rest = rest.subarray(2 + size);
        if (reply === undefined) continue;
        const length = Buffer.alloc(2);
        length.writeUInt16BE(reply.length);
        if (!socket.write(Buffer.concat([length, reply]))) await once(socket, 'drain');
      }
    }
    socket.end();
  } catch {
    // Who asked has gone.
    socket.destroy();
  }
}
