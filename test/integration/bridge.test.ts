// Bridges, in hosts of the test's own: what sandboxes on them reach, and what they don't.
import { expect, test } from 'vitest';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { onHost } from '../helpers/network.js';

describeNeeding(['root', 'program:ip', 'program:nft', 'program:unshare'])('three sandboxes on two bridges', () => {
  test('reach their own, by address and name, and not the others', async () => {
    const seen = await onHost(`
      const red = await Bridge.create({ subnet: ['10.21.0.0/24', 'fd21::/64'], name: 'red' });
      const blue = await Bridge.create({ subnet: ['10.22.0.0/24', 'fd22::/64'] });
      const one = await serve('one', { hostname: 'one', network: { bridge: red } });
      const two = await serve('two', { hostname: 'two', network: { bridge: red } });
      const three = await serve('three', { hostname: 'three', network: { bridge: blue } });
      const tcp = (address) => ['connect-tcp', address, 8080, '?'];
      const answers = await ask([
        tcp('10.21.0.2'), tcp('10.21.0.3'), tcp('fd21::2'), tcp('fd21::3'), tcp('10.22.0.2'), tcp('fd22::2'), tcp('192.0.2.1'), ['read', '/etc/hosts'],
      ], { hostname: 'asking', network: { bridge: red, dns: { 'db.example': '10.21.0.3' } } });
      tell({
        answers: answers.map(({ errno, received, content, text }) => received ?? content ?? text ?? errno),
        host: [await hear(8080, '10.21.0.2'), await hear(8080, 'fd21::3'), await hear(8080, '10.22.0.2')],
        isolation: (await runIsolated('/probe/probe', ['exit', '0'], { mounts, network: { bridge: red } })).isolation.network,
      });
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "answers": [
          "one",
          "two",
          "one",
          "two",
          "EHOSTUNREACH",
          "EACCES",
          "EHOSTUNREACH",
          "127.0.0.1 localhost
      ::1 localhost ip6-localhost ip6-loopback
      10.21.0.3 db.example
      10.21.0.2 one
      fd21::2 one
      10.21.0.3 two
      fd21::3 two
      10.21.0.4 asking
      fd21::4 asking
      ",
        ],
        "host": [
          "one",
          "two",
          "three",
        ],
        "isolation": "bridge",
      }
    `);
  });

  test('as ip and nft show them', async () => {
    const seen = await onHost<{ name: string; links: unknown; inside: unknown; rules: string }>(`
      const red = await Bridge.create({ subnet: ['10.21.0.0/24', 'fd21::/64'], name: 'red', masquerade: true });
      const [{ interfaces }] = await ask([['interfaces']], { network: { bridge: red, address: '10.21.0.77', mac: '02:00:00:00:00:77' } });
      const inner = await Namespace.create('net');
      const attached = await red.attach(inner, { address: 'fd21::abcd' });
      const shown = JSON.parse((await inner.run('ip', ['-j', 'address', 'show', 'dev', 'eth0'])).stdout);
      const routes = ['-4', '-6'].flatMap((family) => JSON.parse(run('nsenter', inNet(inner), 'ip', '-j', family, 'route')));
      tell({
        name: red.name,
        links: ip('-d', 'link').map(({ ifname, linkinfo, master, operstate, ifalias }) => [ifname.replace(/^clv.*/, 'clv…'), linkinfo?.info_kind, master, operstate, ifalias !== undefined]),
        addresses: ip('address', 'show', 'dev', 'red')[0].addr_info.filter(({ scope }) => scope === 'global').map(({ local, prefixlen }) => local + '/' + prefixlen),
        inside: interfaces.map(({ name, up, mac, addresses }) => [name, up, mac, addresses.filter((each) => !each.startsWith('fe80'))]),
        attached, shown: shown[0].addr_info.filter(({ scope }) => scope === 'global').map(({ local, prefixlen }) => local + '/' + prefixlen),
        routes: routes.filter(({ dst }) => dst === 'default').map(({ gateway, dev }) => [gateway, dev]),
        forwarding: run('sysctl', '-n', 'net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding').split('\\n').slice(0, 2),
        rules: run('nft', 'list', 'ruleset').replace(/cloister-[^ ]+/, 'OWNER').replace(/clv[0-9a-z]+-/, 'clvPID-'),
      });
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "addresses": [
          "10.21.0.1/24",
          "fd21::1/64",
        ],
        "attached": {
          "addresses": [
            "10.21.0.2",
            "fd21::abcd",
          ],
        },
        "forwarding": [
          "1",
          "1",
        ],
        "inside": [
          [
            "lo",
            true,
            "00:00:00:00:00:00",
            [
              "127.0.0.1/8",
              "::1/128",
            ],
          ],
          [
            "eth0",
            true,
            "02:00:00:00:00:77",
            [
              "10.21.0.77/24",
              "fd21::2/64",
            ],
          ],
        ],
        "links": [
          [
            "lo",
            null,
            null,
            "UNKNOWN",
            false,
          ],
          [
            "red",
            "bridge",
            null,
            "UP",
            true,
          ],
          [
            "clv…",
            "veth",
            "red",
            "UP",
            true,
          ],
        ],
        "name": "red",
        "routes": [
          [
            "10.21.0.1",
            "eth0",
          ],
          [
            "fd21::1",
            "eth0",
          ],
        ],
        "rules": "table inet OWNER {
      	chain forward {
      		type filter hook forward priority filter; policy accept;
      		iifname "red" oifname "red" accept
      		iifname "red" meta nfproto ipv4 ip saddr != 10.21.0.0/24 drop
      		iifname "red" meta nfproto ipv6 ip6 saddr != fd21::/64 drop
      		ct state established,related accept
      		oifname "red" ct status dnat accept
      		oifname "red" reject with icmpx admin-prohibited
      	}

      	chain input {
      		type filter hook input priority filter; policy accept;
      		iifname "clvPID-*" drop
      		iifname != "red" accept
      		icmpv6 type nd-router-advert drop
      		icmpv6 type nd-redirect drop
      		ct state established,related accept
      		meta l4proto icmp accept
      		meta l4proto ipv6-icmp accept
      		ip daddr 10.21.0.1 socket wildcard 0 accept
      		ip6 daddr fd21::1 socket wildcard 0 accept
      		reject with icmpx admin-prohibited
      	}

      	chain published {
      		type nat hook prerouting priority dstnat; policy accept;
      	}

      	chain published-here {
      		type nat hook output priority -100; policy accept;
      	}

      	chain masquerade {
      		type nat hook postrouting priority srcnat; policy accept;
      		ip saddr 10.21.0.0/24 oifname "red" ct status dnat masquerade
      		ip6 saddr fd21::/64 oifname "red" ct status dnat masquerade
      		ip saddr 10.21.0.0/24 oifname != "red" masquerade
      		ip6 saddr fd21::/64 oifname != "red" masquerade
      	}
      }
      ",
        "shown": [
          "10.21.0.2/24",
          "fd21::abcd/64",
        ],
      }
    `);
  });

  test('reach services of the host only where these are meant for them', async () => {
    const seen = await onHost(`
      const red = await Bridge.create({ subnet: ['10.21.0.0/24', 'fd21::/64'] });
      const blue = await Bridge.create({ subnet: '10.22.0.0/24', masquerade: true });
      const listen = (port, host) => new Promise((resolve) => net.createServer((socket) => socket.end('the host')).listen(port, host, resolve).unref());
      await listen(1111, '0.0.0.0');
      await listen(2222, '10.21.0.1');
      await listen(2222, 'fd21::1');
      await listen(3333, '10.22.0.1');
      await listen(4444, '127.0.0.1');
      const tcp = (address, port) => ['connect-tcp', address, port, '?'];
      const questions = [tcp('10.21.0.1', 1111), tcp('10.21.0.1', 2222), tcp('fd21::1', 2222), tcp('10.22.0.1', 3333), tcp('10.22.0.1', 1111), tcp('10.21.0.1', 4444)];
      tell((await ask(questions, { network: { bridge: red } })).map(({ errno, received }) => received ?? errno));
    `);
    expect(seen).toMatchInlineSnapshot(`
      [
        "EHOSTUNREACH",
        "the host",
        "the host",
        "EHOSTUNREACH",
        "EHOSTUNREACH",
        "EHOSTUNREACH",
      ]
    `);
  });

  test('reach the world only by the address of the host, and are not reached from there', async () => {
    const seen = await onHost(`
      const world = await makeWorld();
      const inWorld = (...args) => run('nsenter', inNet(world), ...args);
      const server = await serve('the world', { network: world });
      const tcp = (address) => ['connect-tcp', address, 8080, '?'];
      const from = async (options) => {
        const bridge = await Bridge.create({ subnet: ['10.21.0.0/24', 'fd21::/64'], ...options });
        const before = await ask([tcp('192.0.2.2'), tcp('2001:db8::2')], { network: { bridge } });
        await bridge.delete();
        return before.map(({ errno, received }) => received ?? errno);
      };
      const without = await from({});
      const masqueraded = await from({ masquerade: true });
      const bridge = await Bridge.create({ subnet: ['10.21.0.0/24', 'fd21::/64'], masquerade: true });
      const inner = await serve('inside', { network: { bridge } });
      inWorld('ip', 'route', 'add', '10.21.0.0/24', 'via', '192.0.2.1');
      inWorld('ip', 'route', 'add', 'fd21::/64', 'via', '2001:db8::1');
      const unasked = await ask([tcp('10.21.0.2'), tcp('fd21::2')], { network: world });
      // Somebody else's address, out of the subnet.
      const spoofing = await Namespace.create('net');
      await bridge.attach(spoofing);
      const inner2 = (...args) => run('nsenter', inNet(spoofing), ...args);
      inner2('ip', 'address', 'add', '192.0.2.9/32', 'dev', 'eth0');
      inner2('ip', 'route', 'change', 'default', 'via', '10.21.0.1', 'dev', 'eth0', 'src', '192.0.2.9');
      const [spoofed] = await ask([tcp('192.0.2.2')], { network: spoofing });
      tell({ without, masqueraded, unasked: unasked.map(({ errno }) => errno), spoofed: spoofed.errno, here: await hear(8080, '10.21.0.2') });
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "here": "inside",
        "masqueraded": [
          "the world",
          "the world",
        ],
        "spoofed": "ETIMEDOUT",
        "unasked": [
          "EHOSTUNREACH",
          "EACCES",
        ],
        "without": [
          "EHOSTUNREACH",
          "EACCES",
        ],
      }
    `);
  });
});

describeNeeding(['root', 'program:ip', 'program:nft', 'program:unshare'])('published ports', () => {
  test('lead to the sandbox from here, from the world and from its peers, until it ends', async () => {
    const seen = await onHost(`
      const world = await makeWorld();
      const bridge = await Bridge.create({ subnet: ['10.21.0.0/24', 'fd21::/64'] });
      const one = await serve('one', { network: { bridge, ports: [
        { host: 0, guest: 8080, address: '0.0.0.0' }, { host: 0, guest: 8080, address: '::' }, { host: 0, guest: 8080 }, { host: 5353, guest: 53, address: '192.0.2.1', protocol: 'udp' },
      ] } });
      const [v4, v6, here] = one.ports.map(({ host }) => host);
      const rules = JSON.parse(run('nft', '-j', 'list', 'ruleset')).nftables.flatMap(({ rule }) => (rule?.chain === 'published' ? [rule.expr.find((each) => 'dnat' in each).dnat] : []));
      const tcp = (address, port) => ['connect-tcp', address, port, '?'];
      const heard = (answers) => answers.map(({ errno, received }) => received ?? errno);
      const questions = [tcp('192.0.2.1', v4), tcp('2001:db8::1', v6), tcp('192.0.2.1', v6), tcp('192.0.2.1', here)];
      const fromWorld = heard(await ask(questions, { network: world }));
      const fromPeer = heard(await ask(questions.slice(0, 2), { network: { bridge } }));
      const fromHere = [await hear(v4, '127.0.0.1'), await hear(v4, '192.0.2.1'), await hear(v6, '::1'), await hear(here, '127.0.0.1')];
      one.kill('SIGKILL');
      await one.exited;
      const after = heard(await ask(questions, { network: world }));
      const left = JSON.parse(run('nft', '-j', 'list', 'ruleset')).nftables.filter(({ rule }) => rule?.chain === 'published').length;
      tell({ rules, fromWorld, fromPeer, fromHere, after, left });
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "after": [
          "ECONNREFUSED",
          "ECONNREFUSED",
          "ECONNREFUSED",
          "ECONNREFUSED",
        ],
        "fromHere": [
          "one",
          "one",
          "one",
          "one",
        ],
        "fromPeer": [
          "one",
          "one",
        ],
        "fromWorld": [
          "one",
          "one",
          "one",
          "ECONNREFUSED",
        ],
        "left": 0,
        "rules": [
          {
            "addr": "10.21.0.2",
            "family": "ip",
            "port": 8080,
          },
          {
            "addr": "10.21.0.2",
            "family": "ip",
            "port": 8080,
          },
          {
            "addr": "fd21::2",
            "family": "ip6",
            "port": 8080,
          },
          {
            "addr": "10.21.0.2",
            "family": "ip",
            "port": 53,
          },
        ],
      }
    `);
  });
});

describeNeeding(['root', 'program:ip', 'program:unshare'])('addresses', () => {
  test('are the lowest that are free, and free again at the end', async () => {
    const seen = await onHost(`
      const bridge = await Bridge.create({ subnet: '10.21.0.0/29' });
      const address = async (options = {}) => (await ask([['interfaces']], { network: { bridge, ...options } }))[0].interfaces.find(({ name }) => name === 'eth0').addresses[0];
      const first = await address();
      const again = await address();
      const nets = [];
      for (let n = 0; n < 5; n++) nets.push(await Namespace.create('net'));
      const attached = [];
      for (const each of nets.slice(0, 4)) attached.push((await bridge.attach(each)).addresses[0]);
      const taken = await refusal(address({ address: '10.21.0.3' }));
      const gateway = await refusal(bridge.attach(nets[4], { address: '10.21.0.1' }));
      const last = (await bridge.attach(nets[4])).addresses;
      const full = await refusal(address());
      nets[1].close();
      // Its link goes with it, some time after: cleanup_net.
      while (ip('link').length > 6) await new Promise((resolve) => setImmediate(resolve));
      tell({ first, again, attached, taken, gateway, last, full, freed: await address() });
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "again": "10.21.0.2/29",
        "attached": [
          "10.21.0.2",
          "10.21.0.3",
          "10.21.0.4",
          "10.21.0.5",
        ],
        "first": "10.21.0.2/29",
        "freed": "10.21.0.3/29",
        "full": "NetworkError ERR_CLOISTER_NETWORK 10.21.0.0/29 has no address left
        Give the bridge a larger subnet.",
        "gateway": "NetworkError ERR_CLOISTER_NETWORK 10.21.0.1 is in use on this bridge
        It is that of the bridge itself.",
        "last": [
          "10.21.0.6",
        ],
        "taken": "NetworkError ERR_CLOISTER_NETWORK 10.21.0.3 is in use on this bridge
        Leave \`address\` out to get one that is free.",
      }
    `);
  });
});

describeNeeding(['root', 'program:ip', 'program:unshare'])('twenty networks at once', () => {
  test('have twenty addresses', async () => {
    const seen = await onHost<string[]>(`
      const bridge = await Bridge.create({ subnet: '10.21.0.0/24' });
      const attach = async () => (await bridge.attach(await Namespace.create('net'))).addresses[0];
      const spawn = async () => {
        const { pid } = await serve('here', { network: { bridge } });
        return JSON.parse(run('nsenter', '--target=' + pid, '--net', 'ip', '-j', '-4', 'address', 'show', 'dev', 'eth0'))[0].addr_info[0].local;
      };
      // One after the other in each of five rows, so that some are chosen while others are being connected.
      const row = async () => [await attach(), await spawn(), await attach(), await attach()];
      tell((await Promise.all(Array.from({ length: 5 }, row))).flat());
    `);
    const expected = Array.from({ length: 20 }, (_, index) => `10.21.0.${index + 2}`);
    expect(new Set(seen)).toEqual(new Set(expected));
  });
});

describeNeeding(['root', 'program:ip', 'program:unshare'])('a bridge', () => {
  // The thread that makes it sleeps until the program begins (a group that may run out of memory), and that waits for its network.
  test('and a limit of memory', async () => {
    const seen = await onHost(`
      const bridge = await Bridge.create({ subnet: '10.21.0.0/24' });
      const { exitCode, reason } = await runIsolated('true', [], { network: { bridge }, cgroup: { memory: '64M' } });
      await bridge.delete();
      tell({ exitCode, reason });
    `);
    expect(seen).toEqual({ exitCode: 0, reason: 'exit' });
  });

  test('that cannot be made is told why, and leaves nothing', async () => {
    const seen = await onHost(`
      const bridge = await Bridge.create({ name: 'red', subnet: '10.21.0.0/24' });
      const links = ip('link').length;
      const rules = run('nft', 'list', 'tables').split('\\n').length;
      const refusals = [
        await refusal(Bridge.create({ subnet: '10.21.0.128/25' })),
        await refusal(Bridge.create({ subnet: '10.0.0.0/8' })),
        await refusal(Bridge.create({ name: 'red', subnet: '10.22.0.0/24' })),
      ];
      const other = await Namespace.create('net');
      const same = [ip('link').length - links, run('nft', 'list', 'tables').split('\\n').length - rules];
      await bridge.delete();
      await bridge.delete();
      refusals.push(await refusal(bridge.attach(other)), await refusal(runIsolated('true', [], { network: { bridge } })));
      tell({ refusals, same, after: ip('link').map(({ ifname }) => ifname) });
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "after": [
          "lo",
        ],
        "refusals": [
          "NetworkError ERR_CLOISTER_NETWORK 10.21.0.128/25 is in use here: red has 10.21.0.1/24
        Choose another subnet: one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918) or fd00::/8 (RFC 4193).",
          "NetworkError ERR_CLOISTER_NETWORK 10.0.0.0/8 is in use here: red has 10.21.0.1/24
        Choose another subnet: one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918) or fd00::/8 (RFC 4193).",
          "NetworkError ERR_CLOISTER_NETWORK EEXIST: name the bridge red (sendmsg): file already exists",
          "IsolationError ERR_CLOISTER_DISPOSED the bridge red has been deleted",
          "IsolationError ERR_CLOISTER_DISPOSED the bridge red has been deleted",
        ],
        "same": [
          0,
          0,
        ],
      }
    `);
  });

  testNeeding(['no-netem'])('that this kernel cannot delay takes nobody, and says why', async () => {
    const seen = await onHost(`
      const bridge = await Bridge.create({ name: 'red', subnet: '10.21.0.0/24' });
      const links = ip('link').length;
      const refused = await refusal(bridge.attach(await Namespace.create('net'), { bandwidth: { lossPercent: 5, delayMs: 10 } }));
      tell({ refused, more: ip('link').length - links });
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "more": 0,
        "refused": "NetworkError ERR_CLOISTER_NETWORK ENOENT: shape the traffic netem (sendmsg): this kernel has no netem
        It is the module sch_netem (CONFIG_NET_SCH_NETEM): on Debian and Ubuntu in the kernel's own package, on Fedora in kernel-modules-extra.",
      }
    `);
  });

  test('where IPv6 is turned off: of IPv4 alone it works, and of IPv6 it is told why not', async () => {
    const seen = await onHost(`
      const tcp = (address) => ['connect-tcp', address, 8080, '?'];
      const heard = (answers) => answers.map(({ errno, received }) => received ?? errno);
      const off = { 'net.ipv6.conf.all.disable_ipv6': '1' };
      run('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1');
      const refused = [await refusal(Bridge.create({ subnet: ['10.21.0.0/24', 'fd21::/64'] }))];
      const left = [ip('link').map(({ ifname }) => ifname), run('nft', 'list', 'tables')];
      const bridge = await Bridge.create({ subnet: '10.21.0.0/24', masquerade: true });
      const ports = [{ host: 7001, guest: 8080, address: '0.0.0.0' }];
      await serve('one', { hostname: 'one', network: { bridge, ports } });
      await serve('off', { network: { bridge }, sysctl: off }, '0.0.0.0');
      const questions = [tcp('10.21.0.2'), tcp('10.21.0.3'), tcp('192.0.2.1'), tcp('2001:db8::1')];
      const egress = ({ address }) => address !== '192.0.2.1' && { host: '127.0.0.1', port: 7001 };
      const open = heard(await ask(questions, { network: { bridge } }));
      // Inside there is IPv6, as nobody has turned it off there; what leaves, does so by IPv4.
      const decided = heard(await ask(questions, { network: { bridge, egress } }));
      const alone = heard(await ask(questions.slice(2), { network: { egress } }));
      const inside = heard(await ask(questions, { network: { bridge, egress }, sysctl: off }));
      run('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=0');
      const both = await Bridge.create({ subnet: ['10.22.0.0/24', 'fd22::/64'] });
      refused.push(await refusal(ask(questions, { network: { bridge: both }, sysctl: off })));
      tell({ refused, left, open, decided, alone, inside, here: await hear(7001, '127.0.0.1') });
    `);
    expect(seen).toMatchInlineSnapshot(`
      {
        "alone": [
          "ECONNRESET",
          "one",
        ],
        "decided": [
          "one",
          "off",
          "ECONNRESET",
          "one",
        ],
        "here": "one",
        "inside": [
          "one",
          "off",
          "ECONNRESET",
          "EADDRNOTAVAIL",
        ],
        "left": [
          [
            "lo",
          ],
          "",
        ],
        "open": [
          "one",
          "off",
          "ENETUNREACH",
          "ENETUNREACH",
        ],
        "refused": [
          "NetworkError ERR_CLOISTER_NETWORK EACCES: give the link an address fd21::1/64 (sendmsg): IPv6 is turned off in this network
        Give the bridge a subnet of IPv4 alone, or turn it on: net.ipv6.conf.all.disable_ipv6 and net.ipv6.conf.default.disable_ipv6 are 0 then, on the host and by \`sysctl\` of the spawn.",
          "NetworkError ERR_CLOISTER_NETWORK EACCES: give the link an address fd22::2/64 (sendmsg): IPv6 is turned off in this network
        Give the bridge a subnet of IPv4 alone, or turn it on: net.ipv6.conf.all.disable_ipv6 and net.ipv6.conf.default.disable_ipv6 are 0 then, on the host and by \`sysctl\` of the spawn.",
        ],
      }
    `);
  });

  test('takes the network of its sandboxes along', async () => {
    const seen = await onHost(`
      const bridge = await Bridge.create({ subnet: '10.21.0.0/24' });
      const one = await serve('one', { network: { bridge } });
      await bridge.delete();
      const links = ip('link').map(({ ifname }) => ifname);
      one.kill('SIGKILL');
      tell({ links, inside: (await one.exited).reason });
    `);
    expect(seen).toEqual({ links: ['lo'], inside: 'signal' });
  });
});
