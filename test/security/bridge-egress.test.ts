// Ways out of a bridge that are tried by a program that may change its own network as it likes. What the host has on its side of the link
// holds all the same; without egress the same attempts get through, so that they are known to be real.
import { expect, test } from 'vitest';
import { describeNeeding } from '../helpers/lane.js';
import { onHost } from '../helpers/network.js';

/** What it sends, it does not wait for: the last, which is allowed, tells that all has been sent. */
const attacker = `
import socket, struct, subprocess, sys
def sh(*lines):
    for line in lines: subprocess.run(line, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def family(address): return socket.AF_INET6 if ':' in address else socket.AF_INET
def quietly(work):
    try: return work()
    except OSError as e: return e
def knock(address, port, source=None):
    s = socket.socket(family(address), socket.SOCK_STREAM)
    s.setblocking(False)
    if source: quietly(lambda: s.bind((source, 0)))
    quietly(lambda: s.connect((address, port)))
    opened.append(s)
def say(text, address, port, source=None, options=None):
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    if source: quietly(lambda: s.bind((source, 0)))
    if options: s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
    quietly(lambda: s.sendto(text.encode(), (address, port)))
def ping(address):
    six = ':' in address
    s = socket.socket(family(address), socket.SOCK_RAW, socket.getprotobyname('ipv6-icmp' if six else 'icmp'))
    quietly(lambda: s.sendto(bytes.fromhex('8000000000000000' if six else '0800f7ff00000000'), (address, 0)))
def raw(packet, address):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    quietly(lambda: s.sendto(packet, (address, 0)))
opened = []
outside = ('192.0.2.2', '2001:db8::2', '192.0.2.1', '2001:db8::1', '10.22.0.2')
def everywhere(text, source=None):
    for address in outside:
        own = source.get(family(address)) if source else None
        knock(address, 8080, own); say(text, address, 1111, own); ping(address)
def fence():
    for address in ('10.21.0.1', 'fd21::1'):
        s = socket.create_connection((address, 2222), 20)
        if s.recv(10) != b'the host': raise SystemExit('fence')
take = ('nft flush ruleset', 'ip route del local default', 'ip -6 route del local default', 'ip route flush default', 'ip -6 route flush default')
ways = ('ip route replace default via 10.21.0.1 dev eth0', 'ip -6 route replace default via fd21::1 dev eth0')
neighbour = {socket.AF_INET: '10.21.0.2', socket.AF_INET6: 'fd21::2'}
`;

/** A world, a bridge next to this one, a neighbour that forwards for whoever asks, services of the host; and what counts who gets out. */
const scene = `
  import dgram from 'node:dgram';
  const world = await makeWorld();
  await serve('the world', { network: world });
  const red = await Bridge.create({ subnet: ['10.21.0.0/24', 'fd21::/64'], name: 'red', masquerade: true });
  const blue = await Bridge.create({ subnet: '10.22.0.0/24', name: 'blue' });
  await serve('blue', { network: { bridge: blue, ports: [{ host: 7777, guest: 8080, address: '0.0.0.0' }] } });
  const neighbour = await serve('a neighbour', { network: { bridge: red } });
  const forwards = ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'];
  // The host too, as packets with such a route pass it.
  const sourceRoutes = (link) => ['all', link].map((each) => 'net.ipv4.conf.' + each + '.accept_source_route');
  run('nsenter', '--target=' + neighbour.pid, '--net', 'sysctl', '-qw', ...[...forwards, ...sourceRoutes('eth0')].map((name) => name + '=1'));
  run('sysctl', '-qw', ...sourceRoutes('red').map((name) => name + '=1'));
  const heard = new Set();
  const listen = (host, port) => new Promise((resolve) => net.createServer((socket) => { heard.add('tcp ' + host); socket.end('the host'); }).listen({ port, host }, resolve).unref());
  const bind = (type, host, port) => new Promise((resolve) => dgram.createSocket(type === 'udp6' ? { type, ipv6Only: true } : type).on('message', (text, { address }) => heard.add(text + ' from ' + address)).bind(port, host, resolve).unref());
  for (const host of ['10.21.0.1', 'fd21::1']) await new Promise((resolve) => net.createServer((socket) => socket.end('the host')).listen(2222, host, resolve).unref());
  await listen('0.0.0.0', 8080); await bind('udp4', '0.0.0.0', 1111); await bind('udp6', '::', 1111);
  await bind('udp4', '10.21.0.1', 3333);
  const counted = ['by-tcp', 'by-udp', 'by-ping', 'to-blue'];
  run('nft', 'add table inet watch; ' + counted.map((name) => 'add counter inet watch ' + name + ';').join(' ') +
    'add chain inet watch out { type filter hook postrouting priority 300; }; ' +
    'add rule inet watch out oifname "wan" tcp flags & (syn | ack) == syn counter name by-tcp; add rule inet watch out oifname "wan" meta l4proto udp counter name by-udp; ' +
    'add rule inet watch out oifname "wan" icmp type echo-request counter name by-ping; add rule inet watch out oifname "wan" icmpv6 type echo-request counter name by-ping; ' +
    'add rule inet watch out iifname "red" oifname "blue" counter name to-blue;');
  const got = () => Object.fromEntries(JSON.parse(run('nft', '-j', 'list', 'counters', 'table', 'inet', 'watch')).nftables.flatMap(({ counter }) => counter ? [[counter.name, counter.packets > 0]] : []));
  const attack = async (script, egress, capabilities = ['CAP_NET_ADMIN', 'CAP_NET_RAW']) => {
    run('nft', 'reset', 'counters', 'table', 'inet', 'watch');
    heard.clear();
    const { stdout, stderr } = await runIsolated('python3', ['-c', ${JSON.stringify(attacker)} + script], { capabilities, network: { bridge: red, ...(egress === undefined ? {} : { egress }) } });
    return { said: stdout + stderr, ...got(), heard: [...heard].sort() };
  };
  const both = async (script, capabilities) => tell({ open: await attack(script, undefined, capabilities), decided: await attack(script, 'deny', capabilities) });
`;

interface Got {
  readonly [counter: string]: boolean | string | readonly string[];
}
const nothing: Got = { said: '', 'by-tcp': false, 'by-udp': false, 'by-ping': false, 'to-blue': false, heard: [] };
const everything: Got = { ...nothing, 'by-tcp': true, 'by-udp': true, 'by-ping': true };

/** What each does, and what comes of it where egress is not decided. */
const attacks: Readonly<Record<string, readonly [script: string, open: Got]>> = {
  'its routes to the gateway': ["sh(*take, *ways); everywhere('routed'); fence()", everything],
  'a neighbour that forwards': [
    "sh(*take, 'ip route replace default via 10.21.0.2 dev eth0', 'ip -6 route replace default via fd21::2 dev eth0'); everywhere('forwarded'); fence()",
    everything,
  ],
  "the neighbour's address": [
    `sh(*take, 'ip address add 10.21.0.2/32 dev eth0', 'ip -6 address add fd21::2/128 dev eth0 nodad', *ways)
everywhere('spoofed', neighbour); say('as another', '10.21.0.1', 3333, '10.21.0.2')
sh('ip address del 10.21.0.2/32 dev eth0', 'ip -6 address del fd21::2/128 dev eth0'); fence()`,
    { ...everything, heard: ['as another from 10.21.0.2'] },
  ],
  "the neighbour's address, and its hardware address": [
    `sh(*take, 'ip link set eth0 address 02:63:00:00:00:02', 'ip address add 10.21.0.2/32 dev eth0', *ways)
say('as another', '10.21.0.1', 3333, '10.21.0.2'); everywhere('spoofed', neighbour)
sh('ip address del 10.21.0.2/32 dev eth0', 'ip link set eth0 address 02:63:00:00:00:03'); fence()`,
    { ...everything, heard: ['as another from 10.21.0.2'] },
  ],
  // Only past the filter of a link would it be heard at all: that of the bridge drops it, too.
  'frames to a group that bridges do not forward': [
    `sh(*take, *ways); fence(); sh('ip neigh replace 10.21.0.1 lladdr 01:80:c2:00:00:0e dev eth0', 'ip -6 neigh replace fd21::1 lladdr 01:80:c2:00:00:0e dev eth0')
everywhere('to a group'); sh('ip neigh del 10.21.0.1 dev eth0', 'ip -6 neigh del fd21::1 dev eth0'); fence()`,
    nothing,
  ],
  'a source route': [
    "sh(*take, *ways); say('source-routed', '192.0.2.2', 1111, options=bytes([1, 131, 7, 4, 10, 21, 0, 2])); fence()",
    { ...nothing, 'by-udp': true },
  ],
  "a port that another bridge's sandbox has published": [
    "knock('10.21.0.1', 7777); knock('192.0.2.1', 7777); sh(*take, *ways); knock('10.21.0.1', 7777); knock('192.0.2.1', 7777); fence()",
    { ...nothing, 'to-blue': true },
  ],
};

const what = ['root', 'program:ip', 'program:nft', 'program:unshare', 'program:nsenter', 'program:sysctl', 'python3'] as const;
describeNeeding(what)('with CAP_NET_ADMIN and CAP_NET_RAW, by', () => {
  test.each(Object.entries(attacks))(
    '%s',
    async (_, [script, open]) => {
      expect(await onHost(`${scene} await both(${JSON.stringify(script)});`)).toEqual({ open, decided: nothing });
    },
    70_000,
  );

  test('advertising itself as a router: the host does not believe it, and to neighbours it does not come where egress is decided', async () => {
    const script = `
sh('ip -6 address add fe80::bad/64 dev eth0 nodad')
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
s.bind(('fe80::bad', 0, 0, socket.if_nametoindex('eth0')))
s.sendto(struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0), ('ff02::1', 0, 0, socket.if_nametoindex('eth0')))
fence()`;
    const seen = await onHost(`${scene}
      const script = ${JSON.stringify(script)};
      const routes = (...at) => run(...at, 'ip', '-6', 'route', 'show', 'default', 'proto', 'ra').trim();
      const unforwarding = await serve('another', { network: { bridge: red } });
      // A router does not listen to others: this host is to be none.
      run('sysctl', '-qw', 'net.ipv6.conf.red.forwarding=0');
      const results = {};
      for (const [name, egress] of [['open', undefined], ['decided', 'deny']]) {
        const { said } = await attack(script, egress);
        results[name] = { said, host: routes('env'), neighbour: routes('nsenter', '--target=' + unforwarding.pid, '--net') };
        run('nsenter', '--target=' + unforwarding.pid, '--net', 'ip', '-6', 'route', 'flush', 'proto', 'ra');
      }
      tell(results);
    `);
    expect(seen).toEqual({
      open: { said: '', host: '', neighbour: expect.stringContaining('default via fe80::bad') },
      decided: { said: '', host: '', neighbour: '' },
    });
  }, 70_000);
});

describeNeeding(what)('without capabilities', () => {
  test('by number, by a link of its choice, to the gateway and to everybody', async () => {
    const script = `
def tcp(address, port, link=None):
    s = socket.socket(family(address), socket.SOCK_STREAM)
    s.settimeout(5)
    if link: s.setsockopt(socket.SOL_SOCKET, 25, link)
    try:
        s.connect((address, port)); return (s.recv(20) or b'nothing').decode()
    except OSError as e: return type(e).__name__
for address in ('192.0.2.2', '2001:db8::2', '::ffff:192.0.2.2', '10.22.0.2', '192.0.2.1', '2001:db8::1'): print(address, tcp(address, 8080))
for address, port in (('10.21.0.1', 8080), ('10.21.0.1', 7777), ('10.21.0.1', 2222), ('fd21::1', 2222), ('10.21.0.2', 8080), ('fd21::2', 8080)): print(address, port, tcp(address, port))
for address in outside + ('10.21.0.1', '224.0.0.1', '255.255.255.255'): say('said', address, 1111)
for address in ('192.0.2.2', '2001:db8::2'):
    s = socket.socket(family(address), socket.SOCK_STREAM); s.setblocking(False)
    s.setsockopt(socket.SOL_SOCKET, 25, b'eth0'); quietly(lambda: s.connect((address, 8080))); opened.append(s)
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, 25, b'eth0'); quietly(lambda: s.sendto(b'by its link', (address, 1111)))
print(type(quietly(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))).__name__)
fence()
`;
    const seen = await onHost<{ open: Got; decided: Got }>(`${scene} await both(${JSON.stringify(script)}, []);`);
    const lines = (got: Got): string[] => String(got['said']).trim().split('\n');
    expect(lines(seen.open)).toMatchInlineSnapshot(`
      [
        "192.0.2.2 the world",
        "2001:db8::2 the world",
        "::ffff:192.0.2.2 the world",
        "10.22.0.2 OSError",
        "192.0.2.1 OSError",
        "2001:db8::1 PermissionError",
        "10.21.0.1 8080 OSError",
        "10.21.0.1 7777 blue",
        "10.21.0.1 2222 the host",
        "fd21::1 2222 the host",
        "10.21.0.2 8080 a neighbour",
        "fd21::2 8080 a neighbour",
        "PermissionError",
      ]
    `);
    expect(lines(seen.decided)).toMatchInlineSnapshot(`
      [
        "192.0.2.2 ConnectionResetError",
        "2001:db8::2 ConnectionResetError",
        "::ffff:192.0.2.2 ConnectionResetError",
        "10.22.0.2 ConnectionResetError",
        "192.0.2.1 ConnectionResetError",
        "2001:db8::1 ConnectionResetError",
        "10.21.0.1 8080 OSError",
        "10.21.0.1 7777 OSError",
        "10.21.0.1 2222 the host",
        "fd21::1 2222 the host",
        "10.21.0.2 8080 a neighbour",
        "fd21::2 8080 a neighbour",
        "PermissionError",
      ]
    `);
    expect({ ...seen.open, said: '' }).toEqual({ ...everything, 'by-ping': false, 'to-blue': true });
    expect({ ...seen.decided, said: '' }).toEqual(nothing);
  }, 70_000);

  test("a neighbour does not get out by another one's egress", async () => {
    const script = `
sh('ip route replace default via 10.21.0.3 dev eth0', 'ip -6 route replace default via fd21::3 dev eth0', 'ip route add 198.18.0.0/15 via 10.21.0.3 dev eth0')
everywhere('through another')
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.21.0.4', 0)); s.settimeout(1)
quietly(lambda: s.sendto(struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + b'\\x07allowed\\x07example\\x00\\x00\\x01\\x00\\x01', ('198.18.0.1', 53)))
fence()
`;
    const seen = await onHost(`${scene}
      const asked = [];
      await serve('decided', { network: { bridge: red, egress: (request) => { asked.push(request); return true; } } });
      // Its own way out is masqueraded: only what the other one takes would be asked about.
      const { said } = await attack(${JSON.stringify(script)}, undefined);
      tell({ said, asked });
    `);
    expect(seen).toEqual({ said: '', asked: [] });
  }, 70_000);
});
