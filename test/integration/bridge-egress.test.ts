// A bridge, and egress on it: neighbours are reached as ever, and what leaves the subnet is decided about.
import { expect, test } from 'vitest';
import { describeNeeding } from '../helpers/lane.js';
import { onHost } from '../helpers/network.js';

const subnets = `['10.21.0.0/24', 'fd21::/64']`;
/** What was denied is told with the answers. */
const asking = `
  const tcp = (address, port = 8080) => ['connect-tcp', address, port, '?'];
  const askTelling = async (questions, options) => {
    const child = spawnIsolated('/probe/probe', words(questions), { mounts, ...options });
    const denied = [];
    child.on('denied', ({ kind, address, port, hostname }) => denied.push([kind, hostname, address, port].filter(Boolean).join(' ')));
    let out = '';
    for await (const chunk of child.stdout) out += chunk;
    const { isolation } = await child.exited;
    return { answers: out.trim().split('\\n').map((line) => JSON.parse(line)).map(({ errno, received }) => received ?? errno), denied, network: isolation.network };
  };
`;

const byName = `
import socket, struct
def tcp(name):
    try: return socket.create_connection((name, 8080), 10).recv(20).decode()
    except OSError as e: return type(e).__name__
for name in ('one', 'One', 'db.example', 'world.example', 'six.example', 'other.example', 'nowhere.example'): print(name, tcp(name))
# Who does not read /etc/hosts.
def question(name, kind):
    labels = b''.join(bytes([len(label)]) + label for label in name.encode().split(b'.'))
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.sendto(struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + labels + struct.pack('>BHH', 0, kind, 1), ('198.18.0.1', 53))
    answer = s.recv(512)
    return answer[3] & 15, answer[7], answer[-16:].hex() if answer[7] and kind == 28 else answer[-4:].hex() if answer[7] else ''
for name, kind in (('one', 1), ('ONE', 28), ('db.example', 1), ('db.example', 28), ('asking', 1), ('two', 1)): print(name, kind, question(name, kind))
`;
const echoing = `
import socket, threading
def tcp(s):
    while True:
        c, _ = s.accept()
        c.recv(10); c.sendall(b'tcp'); c.close()
def udp(s):
    while True:
        text, peer = s.recvfrom(100)
        s.sendto(text + b'!', peer)
t = socket.create_server(('::', 8080), family=socket.AF_INET6, dualstack_ipv6=True)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('0.0.0.0', 5300))
v = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); v.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); v.bind(('::', 5300))
for work, s in ((tcp, t), (udp, u), (udp, v)): threading.Thread(target=work, args=(s,)).start()
print('ready')
`;

describeNeeding(['root', 'program:ip', 'program:nft', 'program:unshare', 'program:nsenter', 'python3'])('a sandbox on a bridge whose egress is decided', () => {
  test.each(['true', 'false'])('reaches its neighbours, and outside what the list has (masquerade: %s)', async (masquerade) => {
    const seen = await onHost(`${asking}
      const world = await makeWorld();
      await serve('the world', { network: world });
      const bridge = await Bridge.create({ subnet: ${subnets}, masquerade: ${masquerade} });
      const blue = await Bridge.create({ subnet: '10.22.0.0/24' });
      await serve('one', { hostname: 'one', network: { bridge } });
      await serve('two', { hostname: 'two', network: { bridge, egress: 'deny' } });
      await serve('blue', { network: { bridge: blue } });
      const network = (egress) => ({ bridge, egress, dns: { 'db.example': '10.21.0.2', 'world.example': '192.0.2.2' } });
      const near = [tcp('10.21.0.2'), tcp('10.21.0.3'), tcp('fd21::2'), tcp('fd21::3'), tcp('10.21.0.99')];
      const far = [tcp('192.0.2.2'), tcp('2001:db8::2'), tcp('10.22.0.2'), tcp('192.0.2.1')];
      tell({
        none: await askTelling([...near, ...far], { network: network('deny') }),
        some: await askTelling([...near, ...far], { network: network({ allow: ['192.0.2.0/30:8080', '2001:db8::/64', '10.22.0.2'] }) }),
      });
    `);
    const near = ['one', 'two', 'one', 'two', 'EHOSTUNREACH'];
    const denied = ['egress 192.0.2.2 8080', 'egress 2001:db8::2 8080', 'egress 10.22.0.2 8080', 'egress 192.0.2.1 8080'];
    expect(seen).toEqual({
      none: { answers: [...near, ...Array(4).fill('ECONNRESET')], denied, network: 'bridge' },
      // Allowed, but nobody listens on this host.
      some: { answers: [...near, 'the world', 'the world', 'blue', 'ECONNRESET'], denied: [], network: 'bridge' },
    });
  });

  test('by names: those of neighbours lead there, those of the list outside, and others nowhere', async () => {
    const seen = await onHost(`${asking}
      const world = await makeWorld();
      await serve('the world', { network: world });
      const bridge = await Bridge.create({ subnet: ${subnets} });
      await serve('one', { hostname: 'One', network: { bridge } });
      const script = ${JSON.stringify(byName)};
      const child = spawnIsolated('python3', ['-c', script], { hostname: 'asking', network: {
        bridge, egress: { allow: ['world.example', 'six.example:8080'] },
        dns: { 'db.example': '10.21.0.2', 'world.example': '192.0.2.2', 'six.example': '2001:db8::2', 'other.example': '192.0.2.2' },
      } });
      const denied = [];
      child.on('denied', ({ kind, hostname, port }) => denied.push([kind, hostname, port].join(' ')));
      let out = '';
      for await (const chunk of child.stdout) out += chunk;
      for await (const chunk of child.stderr) out += chunk;
      await child.exited;
      tell({ out: out.split('\\n'), denied });
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "denied": [
          "dns other.example 53",
          "dns other.example 53",
          "dns nowhere.example 53",
          "dns nowhere.example 53",
          "dns two 53",
        ],
        "out": [
          "one one",
          "One one",
          "db.example one",
          "world.example the world",
          "six.example the world",
          "other.example gaierror",
          "nowhere.example gaierror",
          "one 1 (0, 1, '0a150002')",
          "ONE 28 (0, 1, 'fd210000000000000000000000000002')",
          "db.example 1 (0, 1, '0a150002')",
          "db.example 28 (0, 0, '')",
          "asking 1 (0, 1, '0a150003')",
          "two 1 (3, 0, '')",
          "",
        ],
      }
    `);
  });

  test('answers at its published ports: to this host, to the world and to its peers, by TCP and UDP', async () => {
    const seen = await onHost(`${asking}
      import dgram from 'node:dgram';
      const world = await makeWorld();
      const results = {};
      for (const [name, egress] of [['open', {}], ['decided', { egress: 'deny' }]]) {
        const bridge = await Bridge.create({ subnet: ${subnets} });
        const ports = [
          { host: 7001, guest: 8080, address: '0.0.0.0' }, { host: 7002, guest: 8080, address: '::' },
          ...['192.0.2.1', '2001:db8::1', '127.0.0.1'].map((address, index) => ({ host: 7003 + index, guest: 5300, address, protocol: 'udp' })),
        ];
        const one = spawnIsolated('python3', ['-u', '-c', ${JSON.stringify(echoing)}], { network: { bridge, ports, ...egress } });
        for await (const chunk of one.stdout) if (String(chunk).includes('ready')) break;
        const questions = [tcp('192.0.2.1', 7001), tcp('2001:db8::1', 7002), ['send-udp', '192.0.2.1', 7003, 'four'], ['send-udp', '2001:db8::1', 7004, 'six']];
        const here = new Promise((resolve) => dgram.createSocket('udp4').on('message', (text) => resolve(String(text))).send('here', 7005, '127.0.0.1'));
        results[name] = {
          world: (await askTelling(questions, { network: world })).answers,
          peer: (await askTelling(questions, { network: { bridge } })).answers,
          host: [await hear(7001, '127.0.0.1'), await hear(7002, '::1'), await here],
        };
        one.kill('SIGKILL');
        await one.exited;
        await bridge.delete();
      }
      tell(results);
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "decided": {
          "host": [
            "tcp",
            "tcp",
            "here!",
          ],
          "peer": [
            "tcp",
            "tcp",
            "four!",
            "six!",
          ],
          "world": [
            "tcp",
            "tcp",
            "four!",
            "six!",
          ],
        },
        "open": {
          "host": [
            "tcp",
            "tcp",
            "here!",
          ],
          "peer": [
            "tcp",
            "tcp",
            "four!",
            "six!",
          ],
          "world": [
            "tcp",
            "tcp",
            "four!",
            "six!",
          ],
        },
      }
    `);
  }, 70_000);

  test('as nft and ip show it', async () => {
    const seen = await onHost<{ rules: string; inside: string; routes: string[]; local: string }>(`
      const bridge = await Bridge.create({ subnet: ${subnets}, name: 'red' });
      const one = await serve('one', { network: { bridge, egress: 'deny' } });
      const inside = (...words) => run('nsenter', '--target=' + one.pid, '--net', ...words);
      // By its number in older versions of nft.
      const names = (text) => text.replace(/@ll,48,48 0x26300000002|ether saddr 02:63:00:00:00:02/g, 'ITSELF').replace(/cloister-[^ ]+/g, 'OWNER').replace(/clv[0-9a-z]+-(\\*|[0-9a-z]+)/g, (_, rest) => (rest === '*' ? 'OUR *' : 'LINK'));
      tell({
        rules: names(run('nft', 'list', 'table', 'netdev', JSON.parse(run('nft', '-j', 'list', 'tables')).nftables.find(({ table }) => table?.family === 'netdev').table.name)),
        own: names(run('nft', 'list', 'ruleset', 'inet')).split('\\n').filter((line) => line.includes('10.21.0.2') || line.includes('fd21::2')).map((line) => line.trim()),
        inside: inside('nft', 'list', 'ruleset'),
        routes: ['-4', '-6'].flatMap((family) => inside('ip', family, 'route').trim().split('\\n')).map((line) => line.trim()),
        local: inside('ip', '-6', 'route', 'show', 'type', 'local', 'table', 'main').trim(),
      });
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "inside": "table inet cloister {
      	chain egress {
      		type filter hook prerouting priority mangle; policy accept;
      		iifname != "lo" ip daddr 10.21.0.0/24 accept
      		iifname != "lo" ip6 daddr fd21::/64 accept
      		iifname != "lo" ip6 daddr fe80::/10 accept
      		iifname != "lo" ip6 daddr ff02::/16 accept
      		iifname != "lo" drop
      		ip daddr != 127.0.0.0/8 ip daddr != 198.18.0.1 ip daddr != 10.21.0.0/24 meta l4proto tcp tproxy ip to 198.18.0.1:53 accept
      		ip daddr != 127.0.0.0/8 ip daddr != 198.18.0.1 ip daddr != 10.21.0.0/24 meta l4proto udp tproxy ip to 198.18.0.1:53 accept
      		ip daddr != 127.0.0.0/8 ip daddr != 198.18.0.1 ip daddr != 10.21.0.0/24 meta l4proto != tcp meta l4proto != udp drop
      		ip6 daddr != ::1 ip6 daddr != fdc1:157:e2aa::1 ip6 daddr != fd21::/64 ip6 daddr != fe80::/10 meta l4proto tcp tproxy ip6 to [fdc1:157:e2aa::1]:53 accept
      		ip6 daddr != ::1 ip6 daddr != fdc1:157:e2aa::1 ip6 daddr != fd21::/64 ip6 daddr != fe80::/10 meta l4proto udp tproxy ip6 to [fdc1:157:e2aa::1]:53 accept
      		ip6 daddr != ::1 ip6 daddr != fdc1:157:e2aa::1 ip6 daddr != fd21::/64 ip6 daddr != fe80::/10 meta l4proto != tcp meta l4proto != udp drop
      	}
      }
      ",
        "local": "",
        "own": [
          "iifname "red" ip saddr 10.21.0.2 oifname != "red" reject with icmpx admin-prohibited comment "LINK"",
          "iifname "red" ip6 saddr fd21::2 oifname != "red" reject with icmpx admin-prohibited comment "LINK"",
          "ip daddr 10.21.0.2 oifname "red" ct status dnat masquerade comment "LINK"",
          "ip6 daddr fd21::2 oifname "red" ct status dnat masquerade comment "LINK"",
        ],
        "routes": [
          "local default dev lo proto static scope host src 198.18.0.1",
          "10.21.0.0/24 dev eth0 proto kernel scope link src 10.21.0.2",
          "fd21::/64 dev eth0 proto kernel metric 256 pref medium",
          "fdc1:157:e2aa::1 dev lo proto kernel metric 256 pref medium",
          "fe80::/64 dev eth0 proto kernel metric 256 pref medium",
        ],
        "rules": "table netdev OWNER {
      	chain sent {
      		type filter hook ingress device "LINK" priority filter; policy drop;
      		ITSELF arp saddr ether 02:63:00:00:00:02 arp saddr ip 10.21.0.2 arp daddr ip 10.21.0.0/24 accept
      		ITSELF ip hdrlength 5 ip saddr 10.21.0.2 ip daddr 10.21.0.0/24 accept
      		ip6 nexthdr != tcp ip6 nexthdr != udp ip6 nexthdr != ipv6-frag ip6 nexthdr != ipv6-icmp drop
      		icmpv6 type nd-router-advert drop
      		icmpv6 type nd-redirect drop
      		ITSELF ip6 saddr fd21::2 ip6 daddr fd21::/64 accept
      		ITSELF ip6 saddr fd21::2 ip6 daddr fe80::/10 accept
      		ITSELF ip6 saddr fd21::2 ip6 daddr ff02::/16 accept
      		ITSELF ip6 saddr fe80::/10 ip6 daddr fd21::/64 accept
      		ITSELF ip6 saddr fe80::/10 ip6 daddr fe80::/10 accept
      		ITSELF ip6 saddr fe80::/10 ip6 daddr ff02::/16 accept
      	}
      }
      ",
      }
    `);
  });
});
