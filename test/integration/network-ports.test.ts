// Ports of the host whose connections are made again inside.
import { execFile } from 'node:child_process';
import * as dgram from 'node:dgram';
import { once } from 'node:events';
import * as net from 'node:net';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { type IsolatedProcess, spawnIsolated } from 'cloister';
import { afterEach, describe, expect, test } from 'vitest';
import { settled } from '../helpers/census.js';
import { testNeeding } from '../helpers/lane.js';
import { startProbe } from '../helpers/probe.js';
import { repeats } from '../helpers/repeats.js';
import { refusal, saying } from './refusals.js';

const started: IsolatedProcess[] = [];
afterEach(async () => {
  for (const process of started.splice(0)) await process[Symbol.asyncDispose]();
});

/** A sandbox whose servers are ours: what a program does there can be told step by step. */
async function sandbox(...ports: { host: number; guest: number; protocol?: 'udp'; address?: string }[]) {
  const { process } = startProbe([['sleep']], { network: { ports } });
  started.push(process);
  await process.spawned;
  const serve = async (onConnection: (socket: net.Socket) => void, host = '127.0.0.1') => {
    const server = await process.namespaces.net.listen({ port: ports[0]?.guest as number, host }, onConnection);
    started.push({ [Symbol.asyncDispose]: async () => void server.close() } as unknown as IsolatedProcess);
    return server;
  };
  return { process, serve, port: process.ports[0]?.host as number };
}
const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'none',
    (error: unknown) => error,
  );
const connected = async (port: number, options: Partial<net.TcpNetConnectOpts> = {}): Promise<net.Socket> => {
  const socket = net.connect({ port, host: '127.0.0.1', ...options });
  await once(socket, 'connect');
  return socket;
};

describe('a published port', () => {
  test('is told from `spawned` on, and leads to the program', async () => {
    const { process } = startProbe([['serve-tcp', '127.0.0.1', 8080, 'the program', 2]], { network: { ports: [{ host: 0, guest: 8080 }] } });
    started.push(process);
    expect(process.ports).toEqual([]);
    await process.spawned;
    expect(process.ports).toEqual([{ host: expect.any(Number), guest: 8080 }]);
    const port = process.ports[0]?.host as number;
    await settled(async () => {
      const socket = net.connect(port, '127.0.0.1');
      socket.end();
      return (await text(socket).catch(() => '')) === 'the program';
    });
  });

  test('hands on the end of one direction, and keeps the other', async () => {
    const { serve, port } = await sandbox({ host: 0, guest: 80 });
    await serve((socket) => socket.pipe(socket));
    const socket = await connected(port, { allowHalfOpen: true });
    socket.end('asked');
    expect(await text(socket)).toBe('asked');
  });

  test('hands on a reset as a reset, from either side', async () => {
    const { serve, port } = await sandbox({ host: 0, guest: 80 });
    const accepted: net.Socket[] = [];
    const server = await serve((socket) => accepted.push(socket.on('error', () => {})));
    const first = await connected(port);
    await once(server, 'connection');
    const wasReset = once(first, 'error');
    accepted[0]?.resetAndDestroy();
    expect(await wasReset).toMatchObject([{ code: 'ECONNRESET' }]);
    const second = await connected(port);
    await once(server, 'connection');
    const insideReset = once(accepted[1] as net.Socket, 'error');
    second.resetAndDestroy();
    expect(await insideReset).toMatchObject([{ code: 'ECONNRESET' }]);
  });

  test('takes no more than the program reads', async () => {
    const { serve, port } = await sandbox({ host: 0, guest: 80 });
    const server = await serve((socket) => socket.pause());
    const arrived = once(server, 'connection');
    const socket = await connected(port);
    const [reader] = (await arrived) as [net.Socket];
    const piece = Buffer.alloc(2 ** 20, 'x');
    const total = 256;
    for (let index = 0; index < total; index++) socket.write(piece);
    socket.end();
    // Until nothing moves: what lies in the buffers of four sockets and in ours.
    let before = -1;
    await settled(async () => {
      const same = before === socket.bytesWritten - socket.writableLength;
      before = socket.bytesWritten - socket.writableLength;
      await new Promise((resolve) => setTimeout(resolve, 50));
      return same;
    });
    expect(socket.writableLength).toBeGreaterThan(128 * 2 ** 20);
    let received = 0;
    for await (const chunk of reader) received += (chunk as Buffer).length;
    expect(received).toBe(total * 2 ** 20);
  });

  test('refuses as the program would: where nobody listens, the connection is reset', async () => {
    const { port } = await sandbox({ host: 0, guest: 80 });
    const socket = await connected(port);
    expect(await failure(once(socket, 'close'))).toMatchObject({ code: 'ECONNRESET' });
  });

  testNeeding(['ipv6'])('leads to a program that listens on ::1 only', async () => {
    const { serve, port } = await sandbox({ host: 0, guest: 80 });
    await serve((socket) => socket.end('six'), '::1');
    expect(await text(await connected(port))).toBe('six');
  });

  test('carries datagrams, and the answers back to who asked', async () => {
    const { process, port } = await sandbox({ host: 0, guest: 53, protocol: 'udp' });
    const guest = await process.namespaces.net.bindUdp({ port: 53, host: '127.0.0.1' });
    guest.on('message', (message, from) => guest.send(`${message}!`, from.port, from.address));
    const clients = ['one', 'two'].map((word) => ({ word, socket: dgram.createSocket('udp4') }));
    const answers = clients.map(({ word, socket }) => {
      const answer = once(socket, 'message');
      socket.send(word, port, '127.0.0.1');
      return answer;
    });
    expect((await Promise.all(answers)).map(([message]) => String(message))).toEqual(['one!', 'two!']);
    for (const { socket } of clients) socket.close();
    guest.close();
  });

  test('is gone when `exited` resolves; what the program has said still arrives', async () => {
    const { process, serve, port } = await sandbox({ host: 0, guest: 80 });
    await serve((socket) => socket.end('last words'));
    const socket = await connected(port);
    process.kill('SIGKILL');
    await process.exited;
    expect(await text(socket)).toBe('last words');
    expect(await failure(connected(port))).toMatchObject({ code: 'ECONNREFUSED' });
  });

  const connections = repeats(1000);
  test(`${connections} connections at once, and nothing is lost`, async () => {
    const { serve, port } = await sandbox({ host: 0, guest: 80 });
    await serve((socket) => socket.pipe(socket));
    const payload = 'x'.repeat(20_000);
    const right = await Promise.all(
      Array.from({ length: connections }, async (_, index) => {
        const socket = await connected(port, { allowHalfOpen: true });
        socket.end(`${index} ${payload}`);
        return (await text(socket)) === `${index} ${payload}`;
      }),
    );
    expect(right.filter(Boolean)).toHaveLength(connections);
  });

  test('of which one is taken fails the spawn, and leaves none of the others', async () => {
    const taken = net.createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as net.AddressInfo;
    const process = spawnIsolated('true', {
      network: {
        ports: [
          { host: 0, guest: 80 },
          { host: port, guest: 81 },
        ],
      },
    });
    const message = (await saying(process.exited)).replaceAll(String(port), 'PORT');
    expect(message).toMatchInlineSnapshot(`"EADDRINUSE: publish a port on 127.0.0.1:PORT (listen): address already in use"`);
    expect(await refusal(process.exited)).toMatchObject({ code: 'ERR_CLOISTER_NETWORK', errnoName: 'EADDRINUSE', address: '127.0.0.1', port });
    taken.close();
  });
});

describe('real programs', () => {
  testNeeding(['program:redis-server', 'program:redis-cli'])('redis-server inside, redis-cli outside', async () => {
    const process = spawnIsolated('redis-server', ['--save', '', '--port', '6379', '--bind', '127.0.0.1'], { network: { ports: [{ host: 0, guest: 6379 }] } });
    started.push(process);
    let said = '';
    process.stdout?.on('data', (chunk) => {
      said += chunk;
    });
    await process.spawned;
    await settled(() => said.includes('Ready to accept connections'), { what: said });
    const cli = async (...words: string[]): Promise<string> =>
      (await promisify(execFile)('redis-cli', ['-p', String(process.ports[0]?.host), ...words])).stdout.trim();
    expect([await cli('set', 'key', 'value'), await cli('get', 'key')]).toEqual(['OK', 'value']);
  });

  testNeeding(['python3'])('an HTTP server of python inside', async () => {
    const process = spawnIsolated('python3', ['-u', '-m', 'http.server', '8000'], { cwd: '/etc', network: { ports: [{ host: 0, guest: 8000 }] } });
    started.push(process);
    let said = '';
    process.stdout?.on('data', (chunk) => {
      said += chunk;
    });
    await process.spawned;
    await settled(() => said.includes('Serving HTTP'), { deadline: 20_000, what: said });
    const answer = await fetch(`http://127.0.0.1:${process.ports[0]?.host}/`);
    expect([answer.status, (await answer.text()).includes('passwd')]).toEqual([200, true]);
  });
});
