// What a thousand connections, whose other ends do not read, cost this process: what it has read is not more than is fit to be written.
import { expect } from 'vitest';
import { inChild } from '../helpers/harness.js';
import { testNeeding } from '../helpers/lane.js';

/** Sends to a thousand until nobody takes any more: a little to each, and to twenty of them as much as goes. */
const flood = `
import select, socket, sys
def flood(name, port):
    sockets = {}
    for index in range(1000):
        s = socket.create_connection((name, port))
        s.setblocking(False)
        sockets[s.fileno()] = [s, 64 * 2**20 if index < 20 else 128 * 2**10]
    poll = select.poll()
    for fd in sockets: poll.register(fd, select.POLLOUT)
    piece, rest = b'x' * 65536, sum(quota for _, quota in sockets.values())
    while ready := poll.poll(2000):
        for fd, _ in ready:
            s, quota = sockets[fd]
            try: sent = s.send(piece[:quota])
            except BlockingIOError: continue
            rest -= sent
            sockets[fd][1] -= sent
            if sockets[fd][1] == 0: poll.unregister(fd)
    # Of the twenty, what has not been taken.
    print(rest // 2**20, flush=True)
    sys.stdin.read()
`;
const begin = `
  import { once } from 'node:events';
  import net from 'node:net';
  import { spawn } from 'node:child_process';
  import { spawnIsolated } from 'cloister';
  const flood = ${JSON.stringify(flood)};
  const ended = async (child, before) => {
    const [rest] = await once(child.stdout, 'data');
    const grown = (process.memoryUsage().rss - before) / 2 ** 20;
    console.log(JSON.stringify({ rest: Number(rest), grown }));
    process.exit(0);
  };
`;
const throughEgress = `${begin}
  const server = net.createServer({ pauseOnConnect: true }, (socket) => socket.on('error', () => {})).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const before = process.memoryUsage().rss;
  const script = flood + "flood('world.example', " + server.address().port + ")";
  await ended(spawnIsolated('python3', ['-c', script], { network: { dns: { 'world.example': '127.0.0.1' }, egress: { allow: ['world.example'] } } }), before);
`;
const throughPort = `${begin}
  const listening = "import socket\\ns = socket.create_server(('127.0.0.1', 8080), backlog=1024)\\nprint('ready', flush=True)\\nall = []\\nwhile True: all.append(s.accept())";
  const server = spawnIsolated('python3', ['-c', listening], { network: { ports: [{ host: 0, guest: 8080 }] } });
  await once(server.stdout, 'data');
  const before = process.memoryUsage().rss;
  const script = flood + "flood('127.0.0.1', " + server.ports[0].host + ")";
  await ended(spawn('python3', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] }), before);
`;

for (const [name, script] of Object.entries({ 'by egress': throughEgress, 'by a published port': throughPort })) {
  testNeeding(['python3'])(
    `${name}: what nobody reads stays where it was sent from`,
    async () => {
      const { stdout, stderr } = await inChild(script, { deadline: 85_000 });
      expect(stderr).toBe('');
      const { rest, grown } = JSON.parse(stdout) as { rest: number; grown: number };
      // Most of 1,280 MiB; the kernel has the rest.
      expect(rest).toBeGreaterThan(640);
      // Twice 64 KiB each, for what is read and what is written, and what connections cost.
      expect(grown).toBeLessThan(300);
    },
    90_000,
  );
}
