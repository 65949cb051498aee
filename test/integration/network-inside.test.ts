// Servers and sockets of this process, in a network that is not ours.
import * as dgram from 'node:dgram';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import * as net from 'node:net';
import { text } from 'node:stream/consumers';
import { Namespace, NetworkError } from 'cloister';
import { describe, expect, test } from 'vitest';
import { settled } from '../helpers/census.js';
import { testNeeding } from '../helpers/lane.js';
import { ask, parseAnswer, startProbe } from '../helpers/probe.js';
import { repeats } from '../helpers/repeats.js';
import { refusal, saying } from './refusals.js';

const portOf = (server: net.Server | dgram.Socket): number => (server.address() as net.AddressInfo).port;
const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'none',
    (error: unknown) => error,
  );
const said = async (promise: Promise<unknown>): Promise<string> => String(await failure(promise));
const descriptors = (): number => readdirSync('/proc/self/fd').length;

describe('a server of ours inside', () => {
  test('is reached by a program there, and only there', async () => {
    using network = await Namespace.create('net');
    const server = await network.listen({ port: 7001, host: '127.0.0.1' }, (socket) => socket.end('ours'));
    try {
      const [inside] = await ask([['connect-tcp', '127.0.0.1', 7001, '']], { network });
      expect(inside).toMatchObject({ errno: null, received: 'ours' });
      const [elsewhere] = await ask([['connect-tcp', '127.0.0.1', 7001, '']]);
      expect(elsewhere.errno).toBe('ECONNREFUSED');
      expect(await failure(once(net.connect(7001, '127.0.0.1'), 'connect'))).toMatchObject({ code: 'ECONNREFUSED' });
    } finally {
      server.close();
    }
  });

  test('is a server of Node, with a port that the kernel chooses', async () => {
    using network = await Namespace.create('net');
    const server = await network.listen({});
    expect(server).toBeInstanceOf(net.Server);
    expect(portOf(server)).toBeGreaterThan(1023);
    const [socket, [accepted]] = await Promise.all([network.connect({ port: portOf(server) }), once(server, 'connection') as Promise<[net.Socket]>]);
    expect(socket).toBeInstanceOf(net.Socket);
    socket.end('to and');
    expect(await text(accepted)).toBe('to and');
    await Promise.all([once(socket, 'close'), new Promise((resolve) => server.close(resolve))]);
  });

  test('takes ports below 1024, and one that another namespace has', async () => {
    using one = await Namespace.create('net');
    using other = await Namespace.create('net');
    const servers = [await one.listen({ port: 80 }), await other.listen({ port: 80 })];
    expect(servers.map(portOf)).toEqual([80, 80]);
    for (const server of servers) server.close();
  });

  testNeeding(['ipv6'])('is reached by IPv6, and without a host by both', async () => {
    using network = await Namespace.create('net');
    const server = await network.listen({ port: 7002 }, (socket) => socket.end(String(socket.localAddress)));
    expect(await text(await network.connect({ port: 7002, host: '::1' }))).toBe('::1');
    expect(await text(await network.connect({ port: 7002 }))).toBe('::ffff:127.0.0.1');
    server.close();
  });

  test('lives on when the namespace has been closed, and can be told no more then', async () => {
    const network = await Namespace.create('net');
    const server = await network.listen({ port: 7003 }, (socket) => socket.end('still'));
    const socket = await network.connect({ port: 7003 });
    network.close();
    expect(await text(socket)).toBe('still');
    expect(await refusal(network.connect({ port: 7003 }))).toMatchObject({ code: 'ERR_CLOISTER_DISPOSED' });
    expect(await refusal(network.listen({}))).toMatchObject({ code: 'ERR_CLOISTER_DISPOSED' });
    server.close();
  });
});

describe('a socket of ours inside', () => {
  test('talks to a program there', async () => {
    const { process, lines } = startProbe([['serve-tcp', '127.0.0.1', 0, 'the program', 1]]);
    await using _ = process;
    const { port } = parseAnswer('serve-tcp', await lines.next());
    const socket = await process.namespaces.net.connect({ port: port as number });
    socket.end();
    expect(await text(socket)).toBe('the program');
  });

  const connections = repeats(1000);
  test(`${connections} at once`, async () => {
    using network = await Namespace.create('net');
    const server = await network.listen({ port: 7004 }, (socket) => socket.pipe(socket));
    const all = await Promise.all(
      Array.from({ length: connections }, async (_, index) => {
        const socket = await network.connect({ port: 7004 });
        socket.end(`number ${index}`);
        return (await text(socket)) === `number ${index}`;
      }),
    );
    expect(all.filter(Boolean)).toHaveLength(connections);
    server.close();
  });

  test('datagrams, both ways', async () => {
    using network = await Namespace.create('net');
    const socket = await network.bindUdp({ port: 53 });
    expect(socket).toBeInstanceOf(dgram.Socket);
    socket.on('message', (message, { port, address }) => socket.send(`${message}!`, port, address));
    const [answer] = await ask([['send-udp', '127.0.0.1', 53, 'heard']], { network });
    expect(answer).toMatchObject({ errno: null, received: 'heard!' });
    socket.close();
  });
});

describe('refused', () => {
  test('by the kernel: the address, the port and the call are told', async () => {
    using network = await Namespace.create('net');
    const server = await network.listen({ port: 7005 });
    const error = await refusal(network.connect({ port: 9 }));
    expect(error).toBeInstanceOf(NetworkError);
    expect(error).toMatchObject({ code: 'ERR_CLOISTER_NETWORK', errnoName: 'ECONNREFUSED', syscall: 'connect', address: '127.0.0.1', port: 9 });
    expect([
      (error as Error).message,
      await saying(network.connect({ port: 9, host: '10.1.2.3' })),
      await saying(network.listen({ port: 7005, host: '127.0.0.1' })),
      await saying(network.listen({ port: 7006, host: '10.1.2.3' })),
      await saying(network.bindUdp({ host: '10.1.2.3' })),
    ]).toMatchInlineSnapshot(`
      [
        "ECONNREFUSED: connect to 127.0.0.1:9 inside (connect): connection refused",
        "ENETUNREACH: connect to 10.1.2.3:9 inside (connect): network is unreachable",
        "EADDRINUSE: bind to 127.0.0.1:7005 inside (bind): address already in use",
        "EADDRNOTAVAIL: bind to 10.1.2.3:7006 inside (bind): address not available",
        "EADDRNOTAVAIL: bind to 10.1.2.3:0 inside (bind): address not available",
      ]
    `);
    server.close();
  });

  test('by us, before any call', async () => {
    using network = await Namespace.create('net');
    const loose = network as unknown as Record<'listen' | 'connect' | 'bindUdp', (...args: unknown[]) => Promise<unknown>>;
    expect([
      await said(loose.listen({ port: -1 })),
      await said(loose.listen({ port: 1, host: 'example.com' })),
      await said(loose.listen({ port: 1, backlog: 7 })),
      await said(loose.listen({ port: 1 }, 'no function')),
      await said(loose.connect({})),
      await said(loose.connect({ port: 70000 })),
      await said(loose.bindUdp(null)),
    ]).toMatchInlineSnapshot(`
      [
        "TypeError: option 'port' takes a whole number from 0 to 65535; got -1",
        "TypeError: option 'host' takes an IPv4 or IPv6 address, or 'localhost'; got "example.com"",
        "TypeError: option 'backlog' takes nothing: there is no such option; got 7",
        "TypeError: option 'onConnection' takes a function; got "no function"",
        "TypeError: option 'port' takes a whole number from 1 to 65535; got undefined",
        "TypeError: option 'port' takes a whole number from 1 to 65535; got 70000",
        "TypeError: option 'options' takes an object; got null",
      ]
    `);
  });
});

test('links are those that the inside sees', async () => {
  using network = await Namespace.create('net');
  const [{ interfaces }] = await ask(['interfaces'], { network });
  expect(await network.links()).toEqual(interfaces);
  expect(interfaces).toMatchObject([{ name: 'lo', index: 1, up: true, mtu: 65536, mac: '00:00:00:00:00:00' }]);
});

test('nothing is left', async () => {
  using network = await Namespace.create('net');
  const round = async (): Promise<void> => {
    const server = await network.listen({ port: 7007 }, (socket) => socket.end('x'));
    const udp = await network.bindUdp({});
    await text(await network.connect({ port: 7007 }));
    await network.connect({ port: 7 }).catch(() => {});
    await network.listen({ port: 7007 }).catch(() => {});
    udp.close();
    await new Promise((resolve) => server.close(resolve));
  };
  await round();
  const before = descriptors();
  for (let turn = 0; turn < 5; turn++) await round();
  await settled(() => descriptors() === before);
});
