import type * as dgram from 'node:dgram';
import type * as net from 'node:net';
import { unavailable } from '../unavailable.js';
import { Namespace } from './namespace.js';
import type { Link } from './types.js';

/** network_namespaces(7) */
export class NetNamespace extends Namespace<'net'> {
  static {
    Namespace.register('net', NetNamespace);
  }
  /** A server of this process, listening inside. */
  listen(_options: { port?: number; host?: string }, _onConnection?: (socket: net.Socket) => void): Promise<net.Server> {
    return unavailable('NetNamespace.listen');
  }
  /** A socket of this process, connected from inside. */
  connect(_options: { port: number; host?: string }): Promise<net.Socket> {
    return unavailable('NetNamespace.connect');
  }
  bindUdp(_options: { port?: number; host?: string }): Promise<dgram.Socket> {
    return unavailable('NetNamespace.bindUdp');
  }
  links(): Promise<Link[]> {
    return unavailable('NetNamespace.links');
  }
}
