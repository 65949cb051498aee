// Ports and ways out end with their sandbox, however that ends, and with their host.
import { expect, test } from 'vitest';
import { inChild } from '../helpers/harness.js';
import { fixturesDirectory } from '../helpers/probe.js';
import { repeats } from '../helpers/repeats.js';

const fixtures = JSON.stringify(fixturesDirectory());
const runs = repeats(50, 'CLOISTER_NETWORK_RUNS');

/** Each in turn, in a process of its own that looks at itself. */
const script = `
  import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
  import { spawnIsolated } from 'cloister';
  const mounts = [{ type: 'bind', source: ${fixtures}, target: '/probe', readonly: true }];
  const ports = [{ host: 0, guest: 80 }, { host: 0, guest: 53, protocol: 'udp' }];
  // Whoever is in the world would be waited for.
  const nobody = { host: '127.0.0.1', port: 9 };
  const ask = (...words) => spawnIsolated('/probe/probe', words, { mounts, stdio: 'ignore', network: { ports, egress: ({ port, protocol }) => port === 5 && (protocol === 'udp' ? nobody : (socket) => socket.end('x')) } });
  const endings = [
    () => ask('connect-tcp', '192.0.2.1', '5', 'x', '--', 'connect-tcp', '192.0.2.1', '6', '--', 'send-udp', '192.0.2.1', '6', 'x', '--', 'send-udp', '2001:db8::1', '5', 'x', '--', 'send-udp', '::', '5', 'x'),
    () => ask('connect-tcp', '192.0.2.1', '5', '--', 'sleep').once('spawn', function () { this.kill('SIGKILL'); }),
    () => { const child = ask('sleep'); child.kill('SIGKILL'); return child; },
    () => spawnIsolated('/no/such', [], { mounts, stdio: 'ignore', network: { ports, egress: 'deny' } }),
    () => spawnIsolated('true', [], { stdio: 'ignore', network: { ports: [...ports, { host: 1, guest: 1, address: '192.0.2.1' }], egress: 'deny' } }),
  ];
  let denied = 0;
  const round = async (count) => {
    for (let turn = 0; turn < count; turn++) {
      const child = endings[turn % endings.length]();
      child.on('denied', () => denied++);
      await child.exited.catch(() => {});
    }
  };
  const turns = async (count) => { for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve)); };
  const look = async () => {
    await turns(100);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const targets = readdirSync('/proc/self/fd').map((fd) => { try { return readlinkSync('/proc/self/fd/' + fd).replace(/\\d+/g, ''); } catch { return 'gone'; } });
    return { sockets: targets.filter((target) => target.startsWith('socket')).length, networks: targets.filter((target) => target.startsWith('net:')).length, resources: process.getActiveResourcesInfo().filter((name) => name !== 'Timeout').length };
  };
  await round(10);
  const before = await look();
  await round(${runs});
  const after = await look();
  console.log(JSON.stringify({ before, after, denied: denied > 0 }));
`;

test(`${runs} sandboxes with ports and egress, ended in every way, leave nothing`, async () => {
  const { stdout, stderr, exitCode } = await inChild(script, { deadline: 110_000 });
  expect([stderr, exitCode]).toEqual(['', 0]);
  const { before, after, denied } = JSON.parse(stdout);
  expect(after).toEqual(before);
  expect(denied).toBe(true);
}, 120_000);

test('a thousand connections through a port take two descriptors each and no memory to speak of, and leave nothing', async () => {
  const { stdout, stderr, exitCode } = await inChild(
    `
    import { readdirSync, readlinkSync } from 'node:fs';
    import { connect } from 'node:net';
    import { once } from 'node:events';
    import { spawnIsolated } from 'cloister';
    const mounts = [{ type: 'bind', source: ${fixtures}, target: '/probe', readonly: true }];
    const child = spawnIsolated('/probe/probe', ['sleep'], { mounts, network: { ports: [{ host: 0, guest: 80 }] } });
    await child.spawned;
    const server = await child.namespaces.net.listen({ port: 80, host: '127.0.0.1' }, (socket) => socket.pipe(socket));
    const open = async () => {
      const socket = connect(child.ports[0].host, '127.0.0.1');
      socket.write('x'.repeat(10_000));
      for (let size = 0; size < 10_000; ) size += (await once(socket, 'data'))[0].length;
      return socket;
    };
    const close = async (socket) => { socket.end(); await once(socket, 'close'); };
    const count = () => {
      const targets = readdirSync('/proc/self/fd').map((fd) => { try { return readlinkSync('/proc/self/fd/' + fd).replace(/\\d+/g, ''); } catch { return 'gone'; } });
      return { sockets: targets.filter((target) => target.startsWith('socket')).length, pipes: targets.filter((target) => target.startsWith('pipe')).length, all: targets.length };
    };
    const until = async (right) => { while (!right()) await new Promise((resolve) => setImmediate(resolve)); };
    const idle = count().sockets;
    await close(await open());
    await until(() => count().sockets === idle);
    const before = count();
    const memory = process.memoryUsage.rss();
    const sockets = await Promise.all(Array.from({ length: 1000 }, open));
    const during = count();
    const grown = process.memoryUsage.rss() - memory;
    await Promise.all(sockets.map(close));
    await until(() => count().all <= before.all);
    const after = count();
    console.log(JSON.stringify({ before, after, sockets: during.sockets - before.sockets, pipes: during.pipes - before.pipes, grown }));
    server.close();
    child.kill();
    await child.exited;
  `,
    { deadline: 60_000 },
  );
  expect([stderr, exitCode]).toEqual(['', 0]);
  const { before, after, sockets, pipes, grown } = JSON.parse(stdout);
  expect(after).toEqual(before);
  // The two that it takes, and ours: who asks, and who answers.
  expect(sockets).toBe(4000);
  // Nobody waits for anything: only those that are kept for the next.
  expect(pipes).toBeLessThanOrEqual(2 * 4);
  expect(grown).toBeLessThan(100 * 2 ** 20);
}, 70_000);

test('the host, killed, takes the sandbox and its ports along', async () => {
  const host = `
    import { spawnIsolated } from 'cloister';
    const mounts = [{ type: 'bind', source: ${fixtures}, target: '/probe', readonly: true }];
    const child = spawnIsolated('/probe/probe', ['sleep'], { mounts, network: { ports: [{ host: 0, guest: 80 }], egress: 'deny' } });
    await child.spawned;
    console.log(JSON.stringify({ port: child.ports[0].host, pid: child.pid }));
  `;
  const { stdout } = await inChild(host, { killAt: /port/ });
  const { port, pid } = JSON.parse(stdout);
  const { connect } = await import('node:net');
  const error = await new Promise((resolve) => connect(port, '127.0.0.1').on('error', ({ code }: NodeJS.ErrnoException) => resolve(code)));
  expect(error).toBe('ECONNREFUSED');
  const { settled } = await import('../helpers/settled.js');
  const { existsSync, readFileSync } = await import('node:fs');
  await settled(() => !existsSync(`/proc/${pid}`) || /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')));
});

test('a worker that is ended takes its sandboxes and their ways out along', async () => {
  const { stdout, stderr, exitCode } = await inChild(`
    import { Worker } from 'node:worker_threads';
    import { connect } from 'node:net';
    import { once } from 'node:events';
    const worker = new Worker(\`
      import { parentPort } from 'node:worker_threads';
      import { spawnIsolated } from 'cloister';
      const mounts = [{ type: 'bind', source: ${fixtures.replaceAll('"', "'")}, target: '/probe', readonly: true }];
      const child = spawnIsolated('/probe/probe', ['sleep'], { mounts, network: { ports: [{ host: 0, guest: 80 }, { host: 0, guest: 53, protocol: 'udp' }], egress: 'deny' } });
      await child.spawned;
      parentPort.postMessage(child.ports[0].host);
      setInterval(() => {}, 1000);
    \`, { eval: true, execArgv: ['--input-type=module'] });
    const [port] = await once(worker, 'message');
    await worker.terminate();
    const [{ code }] = await once(connect(port, '127.0.0.1'), 'error');
    console.log(code);
  `);
  expect([stdout, stderr, exitCode]).toEqual(['ECONNREFUSED\n', '', 0]);
});

test('a worker that is ended ends the connections that it carries, and keeps no descriptor', async () => {
  const { stdout, stderr, exitCode } = await inChild(`
    import { readdirSync } from 'node:fs';
    import { Worker } from 'node:worker_threads';
    import { connect } from 'node:net';
    import { once } from 'node:events';
    const turn = async () => {
      const worker = new Worker(\`
        import { parentPort } from 'node:worker_threads';
        import { spawnIsolated } from 'cloister';
        const mounts = [{ type: 'bind', source: ${fixtures.replaceAll('"', "'")}, target: '/probe', readonly: true }];
        const child = spawnIsolated('/probe/probe', ['sleep'], { mounts, network: { ports: [{ host: 0, guest: 80 }] } });
        await child.spawned;
        await child.namespaces.net.listen({ port: 80, host: '127.0.0.1' }, (socket) => socket.write('hello'));
        parentPort.postMessage(child.ports[0].host);
      \`, { eval: true, execArgv: ['--input-type=module'] });
      const [port] = await once(worker, 'message');
      const socket = connect(port, '127.0.0.1').on('error', () => {});
      const [data] = await once(socket, 'data');
      const closed = once(socket, 'close');
      await worker.terminate();
      await closed;
      return String(data);
    };
    await turn();
    const before = readdirSync('/proc/self/fd').length;
    const heard = await turn();
    console.log(heard, readdirSync('/proc/self/fd').length - before);
  `);
  expect([stdout, stderr, exitCode]).toEqual(['hello 0\n', '', 0]);
});

test('a connection that is carried does not keep the process', async () => {
  const { stdout, stderr, exitCode } = await inChild(`
    import { connect } from 'node:net';
    import { once } from 'node:events';
    import { spawnIsolated } from 'cloister';
    const mounts = [{ type: 'bind', source: ${fixtures}, target: '/probe', readonly: true }];
    const child = spawnIsolated('/probe/probe', ['sleep'], { mounts, stdio: 'ignore', network: { ports: [{ host: 0, guest: 80 }] } });
    await child.spawned;
    const server = await child.namespaces.net.listen({ port: 80, host: '127.0.0.1' }, (socket) => socket.unref().write('hello'));
    const socket = connect(child.ports[0].host, '127.0.0.1');
    const [data] = await once(socket, 'data');
    for (const each of [child, server, socket]) each.unref();
    process.on('exit', () => console.log(String(data), socket.destroyed));
  `);
  expect([stdout, stderr, exitCode]).toEqual(['hello false\n', '', 0]);
});

test('without descriptors for it, a connection is carried all the same', async () => {
  const { stdout, stderr, exitCode } = await inChild(
    `
    import { closeSync, openSync } from 'node:fs';
    import * as net from 'node:net';
    import { once } from 'node:events';
    import { text } from 'node:stream/consumers';
    import { relay } from './dist/network/relay.js';
    const pair = async () => {
      const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      const arrived = once(server, 'connection');
      const socket = net.connect({ port: server.address().port, host: '127.0.0.1', allowHalfOpen: true });
      await once(socket, 'connect');
      const [other] = await arrived;
      server.close();
      return [socket, other];
    };
    const carried = async () => {
      const [[client, one], [server, other]] = [await pair(), await pair()];
      const fds = [];
      try { for (;;) fds.push(openSync('/dev/null')); } catch ({ code }) { if (code !== 'EMFILE') throw code; }
      relay(one, other, { said: Buffer.from('said, ') });
      for (const fd of fds) closeSync(fd);
      return [client, server, one.destroyed];
    };
    {
      const [client, server, copied] = await carried();
      client.end('asked');
      let asked = '';
      server.on('data', (chunk) => { asked += chunk; });
      await once(server, 'end');
      server.end('told');
      console.log(copied, asked, await text(client));
    }
    {
      const [client, server] = await carried();
      const broken = once(server, 'error');
      client.resetAndDestroy();
      server.resume();
      console.log((await broken)[0].code);
    }
  `,
    { through: ['prlimit', '--nofile=200'] },
  );
  expect([stdout, stderr, exitCode]).toEqual(['false said, asked told\nECONNRESET\n', '', 0]);
});
