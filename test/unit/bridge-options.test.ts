import { describe, expect, test } from 'vitest';
import { Bridge } from '../../lib/index.js';
import { checkAttach, checkBridge } from '../../lib/network/bridge-options.js';
import { parseSubnet, type Subnet } from '../../lib/network/ip.js';
import { Leases, macFor } from '../../lib/network/leases.js';
import { settingsOf } from '../../lib/spawn/settings.js';

const message = (work: () => unknown): string => {
  try {
    work();
    return 'accepted';
  } catch (error) {
    return error instanceof TypeError ? error.message : `not a TypeError: ${error}`;
  }
};
const bridge = { subnets: [parseSubnet('10.9.0.0/24') as Subnet, parseSubnet('fd09::/64') as Subnet] };

describe('refused, with what it takes', () => {
  test('by Bridge.create', async () => {
    const wrong: unknown[] = [
      undefined,
      {},
      { subnet: '10.9.0.0' },
      { subnet: '10.9.0.1/24' },
      { subnet: '10.9.0.0/31' },
      { subnet: '10.0.0.0/7' },
      { subnet: 'fe80::/64' },
      { subnet: '127.0.0.0/8' },
      { subnet: ['10.9.0.0/24', '10.10.0.0/24'] },
      { subnet: [] },
      { subnet: '10.9.0.0/24', name: 'longer than fifteen' },
      { subnet: '10.9.0.0/24', name: 'a/b' },
      { subnet: '10.9.0.0/24', masquerade: 1 },
      { subnet: '10.9.0.0/24', mtu: 1 },
    ];
    expect(wrong.map((options) => message(() => checkBridge(options)))).toMatchInlineSnapshot(`
      [
        "option 'options' takes an object; got undefined",
        "option 'subnet' takes a network, such as '10.9.0.0/24' or 'fd09::/64'; got undefined",
        "option 'subnet' takes a network, such as '10.9.0.0/24' or 'fd09::/64'; got "10.9.0.0"",
        "option 'subnet' takes a network: 10.9.0.0/24; got "10.9.0.1/24"",
        "option 'subnet' takes a network of 8 to 30 bits, with room for two; got "10.9.0.0/31"",
        "option 'subnet' takes a network of 8 to 30 bits, with room for two; got "10.0.0.0/7"",
        "option 'subnet' takes a network of ordinary addresses: not of loopback, link-local or multicast ones; got "fe80::/64"",
        "option 'subnet' takes a network of ordinary addresses: not of loopback, link-local or multicast ones; got "127.0.0.0/8"",
        "option 'subnet' takes one of IPv4, one of IPv6, or one of each; got an array of 2",
        "option 'subnet' takes one of IPv4, one of IPv6, or one of each; got an array of 0",
        "option 'name' takes 1 to 15 letters, digits, dots, dashes or underscores; got "longer than fifteen"",
        "option 'name' takes 1 to 15 letters, digits, dots, dashes or underscores; got "a/b"",
        "option 'masquerade' takes true or false; got 1",
        "option 'mtu' takes nothing: there is no such option; got 1",
      ]
    `);
    await expect(Bridge.create({ subnet: 'x' })).rejects.toThrow(TypeError);
  });

  test('by attach', () => {
    const wrong: unknown[] = [
      { address: '10.8.0.1' },
      { address: '10.9.0.0' },
      { address: '10.9.0.255' },
      { address: 'fd08::1' },
      { address: 1 },
      { mac: '01:00:00:00:00:00' },
      { mac: '00:00:00:00:00:00' },
      { mac: 'x' },
      { bandwidth: 1 },
      { bandwidth: { egressBps: 10 } },
      { bandwidth: { ingressBps: 1e9 + 0.5 } },
      { bandwidth: { lossPercent: 101 } },
      { bandwidth: { delayMs: -1 } },
      { bandwidth: { rate: 1 } },
      { hostname: 'a b' },
      { ports: [] },
    ];
    expect(wrong.map((options) => message(() => checkAttach(options, bridge)))).toMatchInlineSnapshot(`
      [
        "option 'address' takes an address of the bridge's subnet, 10.9.0.0/24 or fd09::/64; got "10.8.0.1"",
        "option 'address' takes an address of the bridge's subnet, 10.9.0.0/24 or fd09::/64; got "10.9.0.0"",
        "option 'address' takes an address of the bridge's subnet, 10.9.0.0/24 or fd09::/64; got "10.9.0.255"",
        "option 'address' takes an address of the bridge's subnet, 10.9.0.0/24 or fd09::/64; got "fd08::1"",
        "option 'address' takes an address of the bridge's subnet, 10.9.0.0/24 or fd09::/64; got 1",
        "option 'mac' takes an address of one link, such as '02:63:00:00:00:07'; got "01:00:00:00:00:00"",
        "option 'mac' takes an address of one link, such as '02:63:00:00:00:07'; got "00:00:00:00:00:00"",
        "option 'mac' takes an address of one link, such as '02:63:00:00:00:07'; got "x"",
        "option 'bandwidth' takes an object; got 1",
        "option 'bandwidth.egressBps' takes bytes a second, at least 1000; got 10",
        "option 'bandwidth.ingressBps' takes bytes a second, at least 1000; got 1000000000.5",
        "option 'bandwidth.lossPercent' takes a number from 0 to 100; got 101",
        "option 'bandwidth.delayMs' takes milliseconds, at most an hour; got -1",
        "option 'bandwidth.rate' takes nothing: there is no such option; got 1",
        "option 'hostname' takes at most 64 letters, digits, dots, dashes or underscores; got "a b"",
        "option 'ports' takes nothing: there is no such option; got an array of 0",
      ]
    `);
  });

  test('by a spawn', () => {
    const fake = Object.assign(Object.create(Bridge.prototype), {}) as Bridge;
    Object.defineProperty(fake, 'subnets', { value: bridge.subnets });
    const meant = Object.create(Bridge.prototype) as Bridge;
    Object.defineProperty(meant, 'subnets', { value: [parseSubnet('198.18.0.0/24')] });
    const spawn = (options: object): string => message(() => settingsOf('true', [], options));
    expect([
      spawn({ network: { bridge: {} } }),
      spawn({ network: { address: '10.9.0.2' } }),
      spawn({ network: { bandwidth: {} } }),
      spawn({ network: { bandwidth: { delayMs: 1 }, ports: [] } }),
      spawn({ network: { bandwidth: { egressBps: 1e6, ingressBps: 1e6 }, egress: 'deny' } }),
      spawn({ network: { bridge: fake }, namespaces: { net: 'host' } }),
      spawn({ network: { bridge: fake }, detached: true }),
      spawn({ network: { bridge: meant, egress: 'deny' } }),
      spawn({ network: { bridge: fake, egress: 'deny', bandwidth: { egressBps: 1e6, delayMs: 1 } } }),
      spawn({ network: { bridge: fake, egress: 'deny', dns: { a: 'b' } } }),
      spawn({ network: { bridge: fake, egress: 'deny', dns: { 'a b': '10.9.0.2' } } }),
      spawn({ network: { bridge: fake, egress: 'deny', dns: { near: '10.9.0.2', far: '192.0.2.1' } } }),
      spawn({ network: { bridge: fake, dns: { a: 'b' } } }),
      spawn({ network: { bridge: fake, dns: { 'a b': '10.9.0.2' } } }),
      spawn({ network: { bridge: fake, dns: {} }, namespaces: { mount: 'host' } }),
      spawn({ network: { bridge: fake, bandwidth: { egressBps: 1e6 } }, capabilities: ['CAP_NET_ADMIN'] }),
      spawn({ network: { bridge: fake, ports: [{ host: 1 }] } }),
      spawn({ network: { bridge: fake, bandwidth: { egressBps: 1e6 }, ports: [], dns: {} } }),
    ]).toMatchInlineSnapshot(`
      [
        "option 'network.bridge' takes a Bridge; got an instance of Object",
        "option 'network.address' takes nothing without \`bridge\`; got "10.9.0.2"",
        "option 'network.bandwidth' takes nothing without \`bridge\`, \`ports\` or \`egress\`: nothing comes or goes; got an instance of Object",
        "option 'network.bandwidth.delayMs' takes nothing without \`bridge\`: only a link delays and loses; got 1",
        "accepted",
        "option 'network' takes the same as namespaces.net, if both are given; got an instance of Object",
        "option 'detached' takes false with a bridge, which goes with this process; got true",
        "option 'network.egress' takes a bridge without addresses that stand for names, as 198.18.0.0/24 has; got "deny"",
        "accepted",
        "option 'network.dns.a' takes an IPv4 or IPv6 address, or 'localhost'; got "b"",
        "option 'network.dns' takes names of letters, digits, dots, dashes and underscores; got "a b"",
        "accepted",
        "option 'network.dns.a' takes an IPv4 or IPv6 address; got "b"",
        "option 'network.dns' takes names of letters, digits, dots, dashes and underscores; got "a b"",
        "option 'network.dns' takes nothing when namespaces.mount is not 'new': there is no /etc/hosts to write; got an instance of Object",
        "option 'network.bandwidth' takes nothing with CAP_NET_ADMIN, which could undo it; got an instance of Object",
        "option 'network.ports[0].guest' takes a whole number from 1 to 65535; got undefined",
        "accepted",
      ]
    `);
  });
});

describe('addresses', () => {
  test('of IPv4 end before the last one, which is that of all', () => {
    const leases = new Leases([parseSubnet('10.9.0.0/30') as Subnet]);
    expect(leases.take()[0]?.bytes).toEqual(Uint8Array.of(10, 9, 0, 2));
    expect(message(() => leases.take())).toMatchInlineSnapshot(`
      "not a TypeError: NetworkError: 10.9.0.0/30 has no address left
        Give the bridge a larger subnet."
    `);
  });

  test('have a MAC address each', () => {
    const [v4, v6] = bridge.subnets as [Subnet, Subnet];
    expect(macFor(v4, { family: 4, bytes: Uint8Array.of(10, 9, 0, 200) })).toBe('02:63:00:00:00:c8');
    expect(macFor(v6, { family: 6, bytes: Uint8Array.of(0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 2) })).toBe('02:63:ff:00:00:02');
  });
});
