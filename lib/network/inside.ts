import * as dgram from 'node:dgram';
import { once } from 'node:events';
import * as net from 'node:net';
import { IsolationError, NetworkError, optionError } from '../errors.js';
import { native } from '../native.js';
import * as k from '../plan/constants.js';
import { onlyKeys, record } from '../spawn/validate.js';
import { checkAddress, checkPort, endpointText, familyOf, socketAddress } from './address.js';
import { bindInside, type InnerSockets } from './inner-sockets.js';
import type { Network } from './netlink/socket.js';

interface Asked {
  readonly host: string | undefined;
  readonly port: number;
}

function checked(options: unknown, leastPort: number): Asked {
  const { host, port } = record(options, 'options');
  onlyKeys(options as object, '', ['host', 'port']);
  return {
    host: host === undefined ? undefined : checkAddress(host, 'host'),
    port: port === undefined && leastPort === 0 ? 0 : checkPort(port, 'port', leastPort),
  };
}

export async function listenInside(network: Network, options: unknown, onConnection: unknown): Promise<net.Server> {
  const { host, port } = checked(options, 0);
  if (onConnection !== undefined && typeof onConnection !== 'function') throw optionError('onConnection', 'a function', onConnection);
  const server = net.createServer(onConnection as ((socket: net.Socket) => void) | undefined);
  const [fd, bound] = await bindAnywhere(network, k.SOCK_STREAM, host, port);
  // In a worker of node:cluster, too, the descriptor is of this process.
  const begin = () => server.listen({ fd: native().handOver(fd), exclusive: true } as net.ListenOptions);
  await settled(server, 'listening', begin, () => server.close(), {
    step: `listen on ${endpointText(bound, port)} inside`,
    syscall: 'listen',
    address: bound,
    port,
  });
  return server;
}

export async function bindUdpInside(network: Network, options: unknown): Promise<dgram.Socket> {
  const { host = '0.0.0.0', port } = checked(options, 0);
  const [fd] = await bindAnywhere(network, k.SOCK_DGRAM, host, port);
  const socket = dgram.createSocket(net.isIPv6(host) ? 'udp6' : 'udp4');
  const begin = () => socket.bind({ fd: native().handOver(fd), exclusive: true } as dgram.BindOptions);
  await settled(socket, 'listening', begin, () => socket.close(), { step: `bind to ${endpointText(host, port)} inside`, syscall: 'bind', address: host, port });
  return socket;
}

/** As Node's servers: without a host all addresses, of IPv6 and IPv4 alike where there is IPv6. */
async function bindAnywhere(network: Network, type: number, host: string | undefined, port: number): Promise<[fd: number, host: string]> {
  const bind = async (address: string): Promise<[number, string]> => {
    const where = endpointText(address, port);
    try {
      return [await bindInside(network, { family: familyOf(address), type }, socketAddress(address, port), where), address];
    } catch (error) {
      if (!(error instanceof IsolationError) || error.syscall !== 'bind') throw error;
      throw networkError(error.errno as number, { step: `bind to ${where} inside`, syscall: 'bind', address, port });
    }
  };
  if (host !== undefined) return bind(host);
  try {
    return await bind('::');
  } catch (error) {
    // There is none, or it is turned off: net.ipv6.conf.all.disable_ipv6.
    const { errnoName } = error as IsolationError;
    if (errnoName !== 'EAFNOSUPPORT' && errnoName !== 'EADDRNOTAVAIL') throw error;
    return bind('0.0.0.0');
  }
}

export async function connectInside(sockets: InnerSockets, options: unknown, halfOpen = false): Promise<net.Socket> {
  const { host = '127.0.0.1', port } = checked(options, 1);
  const fd = await sockets.take({ family: familyOf(host), type: k.SOCK_STREAM });
  // Node connects the socket that it is given; it is the socket that is inside, not we.
  const socket = new net.Socket({ fd: native().handOver(fd), allowHalfOpen: halfOpen });
  const begin = () => socket.connect({ host, port });
  await settled(socket, 'connect', begin, () => socket.destroy(), {
    step: `connect to ${endpointText(host, port)} inside`,
    syscall: 'connect',
    address: host,
    port,
  });
  return socket;
}

interface Where {
  readonly step: string;
  readonly syscall: string;
  readonly address: string;
  readonly port: number;
}

export function networkError(errno: number, where: Where, cause?: unknown): NetworkError {
  return NetworkError.ofErrno('ERR_CLOISTER_NETWORK', errno, { ...where, ...(cause === undefined ? {} : { cause }) });
}

async function settled(emitter: net.Server | net.Socket | dgram.Socket, event: string, begin: () => void, discard: () => void, where: Where): Promise<void> {
  try {
    const happened = once(emitter, event);
    // A datagram socket tells it before `bind` returns.
    begin();
    await happened;
  } catch (cause) {
    discard();
    const { errno } = cause as NodeJS.ErrnoException;
    throw errno === undefined ? cause : networkError(errno, where, cause);
  }
}
