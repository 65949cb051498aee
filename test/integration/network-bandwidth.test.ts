// Rates where no link is there to be shaped: what passes this process goes no faster. That it goes no slower depends on the machine, and is not asked.
import { createHash } from 'node:crypto';
import * as dgram from 'node:dgram';
import { once } from 'node:events';
import * as net from 'node:net';
import { buffer } from 'node:stream/consumers';
import { type IsolatedProcess, spawnIsolated } from 'cloister';
import { afterEach, describe, expect, test } from 'vitest';
import { testNeeding } from '../helpers/lane.js';
import { startProbe } from '../helpers/probe.js';
import { portOf, runTelling, tcpServer } from '../helpers/world.js';

const started: IsolatedProcess[] = [];
afterEach(async () => {
  for (const process of started.splice(0)) await process[Symbol.asyncDispose]();
});

const rate = 4_000_000;
const size = 2 ** 20;
/** Less what may go at once: 5 ms of it. */
const least = (bytes: number): number => ((bytes - rate / 200) / rate) * 1000;
const data = Buffer.alloc(size, 'what is said in one direction, and has an end');
const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

describe('a published port', () => {
  test('goes no faster than its sandbox may send and receive, by however many connections', async () => {
    const { process } = startProbe([['sleep']], { network: { ports: [{ host: 0, guest: 80 }], bandwidth: { egressBps: rate, ingressBps: rate } } });
    started.push(process);
    await process.spawned;
    const inside: Promise<string>[] = [];
    const converse = async (socket: net.Socket): Promise<string> => {
      socket.end(data);
      return digest(await buffer(socket));
    };
    const server = await process.namespaces.net.listen({ port: 80, host: '127.0.0.1' }, (socket) => void inside.push(converse(socket)));
    const connect = (): Promise<string> => converse(net.connect({ port: process.ports[0]?.host as number, host: '127.0.0.1', allowHalfOpen: true }));
    let heard: string[] = [];
    const took = await timed(async () => {
      heard = [...(await Promise.all([connect(), connect()])), ...(await Promise.all(inside))];
    });
    server.close();
    expect(heard).toEqual(Array(4).fill(digest(data)));
    // Two at a time, and both ways at once.
    expect(took).toBeGreaterThan(least(2 * size));
  });

  test('loses datagrams that come faster', async () => {
    const slow = 10_000;
    const { process } = startProbe([['sleep']], { network: { ports: [{ host: 0, guest: 80, protocol: 'udp' }], bandwidth: { ingressBps: slow } } });
    started.push(process);
    await process.spawned;
    const inside = await process.namespaces.net.bindUdp({ port: 80, host: '127.0.0.1' });
    let received = 0;
    inside.on('message', (message) => {
      received += message.length;
    });
    const begin = performance.now();
    const socket = dgram.createSocket('udp4');
    socket.connect(process.ports[0]?.host as number, '127.0.0.1');
    await once(socket, 'connect');
    const first = once(inside, 'message');
    for (let i = 0; i < 100; i++) socket.send(Buffer.alloc(1000));
    await first;
    // A last one, which is heard when all before it have been or are lost.
    await new Promise<void>((resolve) => {
      const again = setInterval(() => socket.send('last'), 100);
      inside.on('message', (message) => {
        if (message.toString() !== 'last') return;
        clearInterval(again);
        resolve();
      });
    });
    const took = performance.now() - begin;
    socket.close();
    inside.close();
    expect(received).toBeGreaterThanOrEqual(1000);
    // A bucket of 3,200, one that goes over, and what has come into it meanwhile.
    expect(received).toBeLessThan(3200 + 1000 + (slow * took) / 1000);
  });
});

describe('egress', () => {
  testNeeding(['python3'])('goes no faster, by address and by name, also while it is not known whom the program names', async () => {
    // It speaks first: nothing is known until the program does.
    await using world = await tcpServer((socket) => {
      socket.on('error', () => {});
      socket.end(data);
    });
    const script = (host: string): string => `
import hashlib, socket
s = socket.create_connection(('${host}', ${portOf(world)}))
h = hashlib.sha256()
while b := s.recv(65536): h.update(b)
print(h.hexdigest())
`;
    const network = {
      dns: { 'world.example': '127.0.0.1' },
      egress: ({ address, hostname }: { address: string; hostname?: string }) => (hostname !== undefined || address === '192.0.2.1') && { host: '127.0.0.1' },
      bandwidth: { ingressBps: rate },
    };
    const named = { dns: network.dns, egress: { allow: ['world.example'] }, bandwidth: network.bandwidth };
    for (const [host, options] of [
      ['192.0.2.1', network],
      ['world.example', network],
      ['world.example', named],
    ] as const) {
      let stdout = '';
      const took = await timed(async () => {
        ({ stdout } = await runTelling('python3', ['-c', script(host)], { network: options }));
      });
      expect([host, stdout]).toEqual([host, `${digest(data)}\n`]);
      expect(took).toBeGreaterThan(least(size));
    }
  });

  testNeeding(['python3'])('of what is sent', async () => {
    let heard: Promise<Buffer> | undefined;
    await using world = await tcpServer((socket) => {
      heard = buffer(socket);
    });
    const script = `
import socket
s = socket.create_connection(('192.0.2.1', ${portOf(world)}))
s.sendall(b'x' * ${size})
s.shutdown(socket.SHUT_WR)
s.recv(1)
`;
    const took = await timed(() =>
      runTelling('python3', ['-c', script], { network: { egress: () => ({ host: '127.0.0.1' }), bandwidth: { egressBps: rate } } }),
    );
    expect((await heard)?.length).toBe(size);
    expect(took).toBeGreaterThan(least(size));
  });
});

test('what waits for its turn does not hold the process of the host', async () => {
  const child = spawnIsolated('true', [], { network: { ports: [{ host: 0, guest: 80 }], bandwidth: { egressBps: 1000 } } });
  expect((await child.exited).exitCode).toBe(0);
});
