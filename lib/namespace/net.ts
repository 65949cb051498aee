import type * as dgram from 'node:dgram';
import type * as net from 'node:net';
import { InnerSockets } from '../network/inner-sockets.js';
import { bindUdpInside, connectInside, listenInside } from '../network/inside.js';
import { linksOf } from '../network/links.js';
import { Namespace } from './namespace.js';
import type { Link } from './types.js';

/**
 * network_namespaces(7). Servers and sockets of this process in it are Node's own; they need no right but that to enter the
 * namespace, and they keep it alive.
 */
export class NetNamespace extends Namespace<'net'> {
  static {
    Namespace.register('net', NetNamespace);
  }
  #sockets: InnerSockets | undefined;

  /**
   * A server of this process, listening inside. Without `host`, on all addresses; without `port`, on one that the kernel chooses,
   * which `address()` tells.
   *
   * Rejects with `NetworkError` ERR_CLOISTER_NETWORK (EADDRINUSE, EADDRNOTAVAIL …), `IsolationError` ERR_CLOISTER_NAMESPACE.
   */
  listen(options: { port?: number; host?: string }, onConnection?: (socket: net.Socket) => void): Promise<net.Server> {
    return listenInside(this, options, onConnection);
  }

  /** A socket of this process, connected from inside, to 127.0.0.1 without `host`. Rejects as `listen` (ECONNREFUSED, ENETUNREACH …). */
  connect(options: { port: number; host?: string }): Promise<net.Socket> {
    this.#sockets ??= new InnerSockets(this);
    return connectInside(this.#sockets, options);
  }

  /** A UDP socket of this process, bound inside: to 0.0.0.0 without `host`. Rejects as `listen`. */
  bindUdp(options: { port?: number; host?: string }): Promise<dgram.Socket> {
    return bindUdpInside(this, options);
  }

  /** Its links with their addresses ('127.0.0.1/8'), as the kernel lists them: rtnetlink(7). */
  links(): Promise<Link[]> {
    return linksOf(this);
  }
}
