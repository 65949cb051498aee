// What leaves a sandbox, and where to, decided here; what is not allowed is refused at once, and told.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as dgram from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import * as http from 'node:http';
import * as net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import * as tls from 'node:tls';
import { type EgressRequest, explain, runIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { testNeeding } from '../helpers/lane.js';
import { ask } from '../helpers/probe.js';
import { patience, repeats } from '../helpers/repeats.js';
import { certificateFor, httpServer, httpsServer, portOf, runTelling, tcpServer } from '../helpers/world.js';

const local = (name: string) => ({ [name]: '127.0.0.1' });
const curl = ['-sS', '-m', '10'];

describe('a list', () => {
  testNeeding(['program:curl'])('lets curl reach what is on it, by both families, and nothing else', async () => {
    await using world = await httpServer();
    const network = { dns: { ...local('world.example'), ...local('other.example') }, egress: { allow: ['world.example'] } };
    const allowed = await runTelling('curl', [...curl, `http://world.example:${portOf(world)}/page`], { network });
    expect(allowed).toMatchObject({ exitCode: 0, stdout: 'world.example /page', denied: [] });
    const six = await runTelling('curl', ['-6', ...curl, `http://world.example:${portOf(world)}/six`], { network });
    expect([six.stdout, six.stderr].join()).toBe('world.example /six,');
    const denied = await runTelling('curl', [...curl, `http://other.example:${portOf(world)}/`], { network });
    expect(denied.stderr).toBe('curl: (6) Could not resolve host: other.example\n');
    expect(denied.denied[0]).toEqual({ kind: 'dns', pid: denied.process.pid, hostname: 'other.example', address: '198.18.0.1', port: 53 });
  });

  test('that is empty lets nothing out', async () => {
    const told = await runTelling('bash', ['-c', 'exec 3<>/dev/tcp/192.0.2.1/80; read -u 3 line; echo $?'], { network: { egress: 'deny' } });
    expect(told.stdout).toBe('1\n');
    expect(told.denied).toEqual([{ kind: 'egress', pid: told.process.pid, address: '192.0.2.1', port: 80 }]);
  });

  test('is in the receipt, and in the plan', async () => {
    const network = { egress: { allow: ['example.com'] } } as const;
    expect((await runIsolated('true', { network })).isolation.network).toBe('egress');
    expect((await runIsolated('true', { network: { ports: [] } })).isolation.network).toBe('none');
    const steps = (await explain('true', [], { network })).steps.map(({ step }) => step);
    expect(steps).toEqual(expect.arrayContaining(['route everything to this process', 'intercept what is sent', 'open the sockets of this process inside']));
  });

  testNeeding(['python3'])("lets python's urllib out, and a server speak first", async () => {
    await using world = await httpServer();
    await using first = await tcpServer((socket) => socket.end('220 hello\r\n'));
    const script = `
import socket, urllib.request
print(urllib.request.urlopen('http://world.example:${portOf(world)}/urllib').read().decode())
print(socket.create_connection(('first.example', ${portOf(first)})).recv(100).decode().strip())
`;
    const network = { dns: { ...local('world.example'), ...local('first.example') }, egress: { allow: ['*.example'] } };
    const { stdout, stderr, denied } = await runTelling('python3', ['-c', script], { network });
    expect([stdout, stderr, denied]).toEqual(['world.example /urllib\n220 hello\n', '', []]);
  });

  test("lets node's fetch out", async () => {
    await using world = await httpServer();
    const network = { dns: local('world.example'), egress: { allow: [`world.example:${portOf(world)}`] } };
    const script = `fetch('http://world.example:${portOf(world)}/fetch').then((answer) => answer.text()).then(console.log)`;
    const { stdout, stderr } = await runTelling(process.execPath, ['-e', script], { network });
    expect([stdout, stderr]).toEqual(['world.example /fetch\n', '']);
  });

  testNeeding(['program:git'])('lets git clone over HTTP', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'cloister-git-'));
    try {
      const git = (...words: string[]): void => void execFileSync('git', words, { cwd: directory, stdio: 'ignore' });
      git('init', '-q', '-b', 'main', 'work');
      git('-C', 'work', '-c', 'user.name=x', '-c', 'user.email=x@example.com', 'commit', '-q', '--allow-empty', '-m', 'first');
      git('clone', '-q', '--bare', 'work', 'repository.git');
      git('-C', 'repository.git', 'update-server-info');
      const { readFileSync } = await import('node:fs');
      await using world = await httpServer((request, response) => {
        try {
          response.end(readFileSync(join(directory, new URL(request.url ?? '/', 'http://x').pathname)));
        } catch {
          response.writeHead(404).end();
        }
      });
      const network = { dns: local('git.example'), egress: { allow: ['git.example'] } };
      const command = `git clone -q http://git.example:${portOf(world)}/repository.git /tmp/clone && git -C /tmp/clone log --format=%s`;
      const { stdout, stderr, denied } = await runTelling('sh', ['-c', command], { network });
      expect([stdout, stderr, denied]).toEqual(['first\n', '', []]);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  testNeeding(['program:curl', 'program:openssl'])('compares the name that TLS asks for', async () => {
    await using world = await httpsServer(certificateFor('world.example', 'other.example'));
    const network = { dns: local('world.example'), egress: { allow: ['world.example'] } };
    const port = portOf(world);
    const true_ = await runTelling('curl', ['-k', ...curl, `https://world.example:${port}/`], { network });
    expect([true_.stdout, true_.denied]).toEqual(['secret world.example', []]);
    const lie = await runTelling('curl', ['-k', ...curl, '--connect-to', `other.example:${port}:world.example:${port}`, `https://other.example:${port}/`], {
      network,
    });
    expect(lie.stdout).toBe('');
    expect(lie.denied).toEqual([
      { kind: 'egress', pid: lie.process.pid, hostname: 'other.example', address: expect.stringMatching(/^198\.18\.|^fdc1:/), port },
    ]);
  });
});

describe('a function', () => {
  testNeeding(['program:curl', 'program:openssl'])('answers for api.example.com:443 itself', async () => {
    const certificate = certificateFor('api.example.com');
    const server = http.createServer((request, response) => response.end(`this process has ${request.url}`));
    const asked: EgressRequest[] = [];
    const { stdout, stderr, process } = await runTelling('curl', ['-k', ...curl, 'https://api.example.com/v1'], {
      network: {
        egress: async (request) => {
          asked.push(request);
          return (socket) => {
            server.emit('connection', new tls.TLSSocket(socket, { isServer: true, ...certificate }));
          };
        },
      },
    });
    expect([stdout, stderr]).toEqual(['this process has /v1', '']);
    expect(asked).toEqual([{ protocol: 'tcp', address: expect.any(String), port: 443, hostname: 'api.example.com', pid: process.pid }]);
  });

  test('redirects to an address, and to a socket in the file system', async () => {
    await using world = await tcpServer((socket) => socket.end('the address'));
    const directory = mkdtempSync(join(tmpdir(), 'cloister-socket-'));
    const path = join(directory, 'socket');
    const unix = net.createServer((socket) => socket.end('the path'));
    unix.listen(path);
    await once(unix, 'listening');
    try {
      const egress = ({ port }: EgressRequest) => (port === 1 ? { host: '127.0.0.1', port: portOf(world) } : port === 2 ? { path } : false);
      const answers = await ask(
        [
          ['connect-tcp', '192.0.2.1', 1, ''],
          ['connect-tcp', '192.0.2.1', 2, ''],
        ],
        { network: { egress } },
      );
      expect(answers.map(({ received }) => received)).toEqual(['the address', 'the path']);
    } finally {
      unix.close();
      rmSync(directory, { recursive: true });
    }
  });

  test('that throws, rejects or answers nonsense denies', async () => {
    const warnings: string[] = [];
    const listen = (warning: Error): void => void warnings.push(`${warning.name}: ${warning.message}`);
    process.on('warning', listen);
    const policies = [
      () => {
        throw new Error('broken');
      },
      () => Promise.reject(new Error('broken too')),
      () => 'yes' as unknown as boolean,
      () => ({}),
      () => ({ host: '127.0.0.1', port: 0 }),
    ];
    for (const egress of policies) {
      const { stdout, denied } = await runTelling('bash', ['-c', 'exec 3<>/dev/tcp/192.0.2.1/80; read -u 3 line; echo $?'], { network: { egress } });
      expect([stdout, denied.map(({ kind }) => kind)]).toEqual(['1\n', ['egress']]);
    }
    process.off('warning', listen);
    expect(warnings).toMatchInlineSnapshot(`
      [
        "CloisterWarning: an egress function failed, so the connection is denied: broken",
        "CloisterWarning: an egress function failed, so the connection is denied: broken too",
        "CloisterWarning: an egress function answers with true, false or a target; what it gave is taken as false",
        "CloisterWarning: an egress function answers with true, false or a target; what it gave is taken as false",
        "CloisterWarning: an egress function answers with true, false or a target; what it gave is taken as false",
      ]
    `);
  });

  test('lets datagrams out, and their answers in', async () => {
    const echo = dgram.createSocket('udp4').bind(0, '127.0.0.1');
    await once(echo, 'listening');
    echo.on('message', (message, { port, address }) => echo.send(`${message}!`, port, address));
    const asked: EgressRequest[] = [];
    const egress = (request: EgressRequest) => {
      asked.push(request);
      return request.port === 4000 && { host: '127.0.0.1', port: echo.address().port };
    };
    const answers = await ask(
      [
        ['send-udp', '192.0.2.1', 4000, 'four'],
        ['send-udp', '2001:db8::1', 4000, 'six'],
        ['send-udp', '192.0.2.1', 4001, 'no'],
      ],
      { network: { egress } },
    );
    echo.close();
    expect(answers.map(({ errno, received }) => received ?? errno)).toEqual(['four!', 'six!', 'ECONNREFUSED']);
    expect(asked.map(({ protocol, address, port }) => [protocol, address, port])).toEqual([
      ['udp', '192.0.2.1', 4000],
      ['udp', '2001:db8::1', 4000],
      ['udp', '192.0.2.1', 4001],
    ]);
  });
});

describe('datagrams to a name', () => {
  /** By UDP alone, as QUIC is: the name is asked for, and what is sent to its address is meant for it. */
  const script = (port: number): string => `
import socket
for family in (socket.AF_INET, socket.AF_INET6):
    for name in ('quic.example', 'other.example'):
        try: address = socket.getaddrinfo(name, ${port}, family, socket.SOCK_DGRAM)[0][4]
        except OSError: print(name, 'no name'); continue
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.settimeout(20)
        s.connect(address)
        s.send(b'hello')
        try: print(name, s.recv(100).decode())
        except ConnectionRefusedError: print(name, 'refused')
`;

  testNeeding(['python3'])('are asked about with it, go where it leads, and are answered from its stand-in', async () => {
    const echo = dgram.createSocket('udp4').bind(0, '127.0.0.1');
    await once(echo, 'listening');
    echo.on('message', (message, { port, address }) => echo.send(`${message}!`, port, address));
    const asked: EgressRequest[] = [];
    const { stdout, stderr, denied } = await runTelling('python3', ['-c', script(echo.address().port)], {
      network: {
        dns: { ...local('quic.example'), ...local('other.example') },
        egress: (request) => {
          asked.push(request);
          return request.hostname === 'quic.example';
        },
      },
    });
    const { port } = echo.address();
    echo.close();
    expect([stdout, stderr]).toEqual(['quic.example hello!\nother.example refused\n'.repeat(2), '']);
    expect(asked.map(({ protocol, hostname, port: to, address }) => [protocol, hostname, to, net.isIP(address)])).toEqual(
      [4, 6].flatMap((family) => ['quic.example', 'other.example'].map((name) => ['udp', name, port, family])),
    );
    expect(denied.map(({ kind, hostname }) => [kind, hostname])).toEqual(Array(2).fill(['egress', 'other.example']));
  });

  testNeeding(['python3'])('of a list are denied, and told by the name', async () => {
    const { stdout, denied } = await runTelling('python3', ['-c', script(443)], {
      network: { dns: local('quic.example'), egress: { allow: ['quic.example'] } },
    });
    expect(stdout).toBe('quic.example refused\nother.example no name\n'.repeat(2));
    expect(denied.filter(({ kind }) => kind === 'egress').map(({ hostname, port }) => [hostname, port])).toEqual(Array(2).fill(['quic.example', 443]));
  });
});

const connections = repeats(1000);
testNeeding(['python3'])(
  `${connections} connections at once, and nothing is lost`,
  async () => {
    await using world = await tcpServer((socket) => socket.pipe(socket));
    const script = `
import asyncio
async def one(i):
    reader, writer = await asyncio.open_connection('world.example', ${portOf(world)})
    text = (b'%d ' % i) + b'x' * 20000
    writer.write(text)
    writer.write_eof()
    same = await reader.read() == text
    writer.close()
    return same
async def all():
    print(sum(await asyncio.gather(*(one(i) for i in range(${connections})))))
asyncio.run(all())
`;
    const { stdout, stderr, denied } = await runTelling('python3', ['-c', script], {
      network: { dns: local('world.example'), egress: { allow: ['world.example'] } },
    });
    expect([stdout, stderr, denied]).toEqual([`${connections}\n`, '', []]);
  },
  90_000 * patience,
);

test('what a program says at its end still arrives', async () => {
  const received: Promise<string>[] = [];
  await using world = await tcpServer((socket) => {
    received.push(text(socket));
    socket.end();
  });
  const [{ errno }] = await ask([['connect-tcp', '192.0.2.1', portOf(world), 'last words']], { network: { egress: () => ({ host: '127.0.0.1' }) } });
  expect([errno, await received[0]]).toEqual([null, 'last words']);
});

test('a program that breaks off a connection to a socket in the file system breaks nothing here', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'cloister-socket-'));
  const path = join(directory, 'socket');
  const closed: Promise<unknown>[] = [];
  const unix = net.createServer((socket) => {
    closed.push(new Promise((resolve) => socket.on('error', () => {}).on('close', resolve)));
    socket.write('ab');
  });
  unix.listen(path);
  await once(unix, 'listening');
  try {
    // With a byte unread, the end is a reset: RFC 2525, 2.17.
    const { stdout } = await runTelling('bash', ['-c', 'exec 3<>/dev/tcp/192.0.2.1/80; read -N 1 -u 3 byte; echo $byte; exec 3>&-'], {
      network: { egress: () => ({ path }) },
    });
    expect(stdout).toBe('a\n');
    await Promise.all(closed);
    expect(closed).toHaveLength(1);
  } finally {
    unix.close();
    rmSync(directory, { recursive: true });
  }
});

testNeeding(['python3'])('a server that says much before the client has said whom it asks is heard in full', async () => {
  const greeting = Buffer.alloc(24 * 2 ** 20, 'greeting ');
  const questions: Promise<string>[] = [];
  await using world = await tcpServer((socket) => {
    socket.write(greeting);
    questions.push(
      new Promise((resolve) => {
        socket.once('data', (question) => {
          resolve(String(question));
          socket.end('the end');
        });
      }),
    );
  });
  const script = `
import hashlib, socket
s = socket.create_connection(('world.example', ${portOf(world)}))
s.recv(1, socket.MSG_PEEK)
s.sendall(b'GET / HTTP/1.1\\r\\nHost: world.example\\r\\n\\r\\n')
hash = hashlib.sha256()
while data := s.recv(65536): hash.update(data)
print(hash.hexdigest())
`;
  const network = { dns: local('world.example'), egress: { allow: ['world.example'] } };
  const { stdout, stderr } = await runTelling('python3', ['-c', script], { network });
  expect([stdout.trim(), stderr]).toEqual([createHash('sha256').update(greeting).update('the end').digest('hex'), '']);
  expect(await Promise.all(questions)).toEqual(['GET / HTTP/1.1\r\nHost: world.example\r\n\r\n']);
});
