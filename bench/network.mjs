// Row 12: bytes through a connection into a sandbox's network, and through what decides about others, against plain loopback. And twenty
// sandboxes at once, by what their network is.

import { once } from 'node:events';
import * as net from 'node:net';
import { performance } from 'node:perf_hooks';
import { Namespace, spawnIsolated } from 'cloister';
import { contest } from './contest.mjs';

const size = 32 * 2 ** 20;
const atOnce = 20;

/** Both ends are in this process on both sides, so that all that differs is where the sockets are. */
async function throughput(report, rounds) {
  const network = await Namespace.create('net');
  const sink = (socket) => socket.resume();
  const inside = await network.listen({ port: 80 }, sink);
  const plain = net.createServer(sink).listen(0, '127.0.0.1');
  await once(plain, 'listening');
  const child = spawnIsolated('sleep', ['1000'], { network: { ports: [{ host: 0, guest: 80 }] } });
  await child.spawned;
  const guest = await child.namespaces.net.listen({ port: 80, host: '127.0.0.1' }, sink);
  const connected = async (port) => {
    const socket = net.connect(port, '127.0.0.1');
    await once(socket, 'connect');
    return socket;
  };
  try {
    const times = await contest(
      {
        connect: () => send(inside, () => network.connect({ port: 80 })),
        plain: () => send(plain, () => connected(plain.address().port)),
        port: () => send(guest, () => connected(child.ports[0].host)),
      },
      rounds,
      'in a row',
    );
    // Of bytes a second at least 0.95, so of the time at most the inverse.
    report.compare(12, `connect, ${size / 2 ** 20} MiB`, times.connect, 'loopback', times.plain, { goal: 1 / 0.95, condition: 'in a row' });
    report.compare(12, 'published port', times.port, 'loopback', times.plain, { goal: 1.3, condition: 'in a row' });
  } finally {
    for (const server of [inside, plain, guest]) server.close();
    child.kill('SIGKILL');
    await child.exited;
    network.close();
  }
}

/** Microseconds, from the first byte written to the last one read; connecting is not in it. */
async function send(server, connect) {
  const arrived = once(server, 'connection');
  const socket = await connect();
  const [other] = await arrived;
  const piece = Buffer.alloc(2 ** 18);
  const begin = performance.now();
  for (let sent = 0; sent < size; sent += piece.length) if (!socket.write(piece)) await once(socket, 'drain');
  socket.end();
  await once(other, 'end');
  const took = (performance.now() - begin) * 1e3;
  await Promise.all([other, socket].map((end) => end.destroyed || once(end, 'close')));
  return took;
}

async function crowd(report, program, options, rounds) {
  const kinds = {
    'the host’s': { network: 'host' },
    'loopback alone': {},
    'a port': { network: { ports: [{ host: 0, guest: 80 }] } },
    'a list for egress': { network: { egress: { allow: ['example.com'] } } },
  };
  const times = await contest(
    Object.fromEntries(
      Object.entries(kinds).map(([name, network]) => [
        name,
        async () => {
          const begin = performance.now();
          const children = Array.from({ length: atOnce }, () => spawnIsolated(program, [], { ...options, ...network, stdio: 'ignore' }));
          await Promise.all(children.map((child) => child.exited));
          return ((performance.now() - begin) * 1e3) / atOnce;
        },
      ]),
    ),
    rounds,
    'in a row',
  );
  for (const name of Object.keys(kinds).slice(1)) {
    report.compare(12, `${atOnce} at once: ${name}`, times[name], 'the host’s network', times['the host’s'], { condition: 'in a row' });
  }
}

export async function networks(report, program, options, rounds) {
  await throughput(report, Math.ceil(rounds / 10));
  await crowd(report, program, options, Math.ceil(rounds / 6));
}
