// What our netlink messages make, read back by iproute2 and nftables; each in a network namespace of the test's own.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Namespace, type NetNamespace } from '../../lib/index.js';
import { parseAddress, parseSubnet, type Subnet } from '../../lib/network/ip.js';
import { addAddress, listAddresses } from '../../lib/network/netlink/address.js';
import * as x from '../../lib/network/netlink/expressions.js';
import { addBridge, addVeth, changeLink, deleteLink, findLink, listLinks } from '../../lib/network/netlink/link.js';
import * as nft from '../../lib/network/netlink/nftables.js';
import { addRoute, everything, listRoutes } from '../../lib/network/netlink/route.js';
import { addRule } from '../../lib/network/netlink/rule.js';
import { NetlinkSocket } from '../../lib/network/netlink/socket.js';
import { describeNeeding } from '../helpers/lane.js';

/** Of what `ip -j` prints, what is compared here. */
interface Shown {
  readonly ifindex: number;
  readonly ifname: string;
  readonly linkinfo?: { readonly info_kind: string };
  readonly address: string;
  readonly mtu: number;
  readonly flags: readonly string[];
  readonly master?: string;
  readonly ifalias?: string;
  readonly addr_info: readonly {
    readonly local: string;
    readonly prefixlen: number;
    readonly scope: string;
    readonly broadcast?: string;
    readonly tentative?: boolean;
  }[];
  readonly type?: string;
  readonly dst: string;
  readonly gateway?: string;
  readonly dev?: string;
  readonly metric?: number;
  readonly table?: string;
}

const address = (text: string) => parseAddress(text) as NonNullable<ReturnType<typeof parseAddress>>;
const subnet = (text: string): Subnet => parseSubnet(text) as Subnet;

describeNeeding(['user-namespaces', 'program:ip', 'program:nft'])('a network of the test’s own', () => {
  let inside: NetNamespace;
  let route: NetlinkSocket;
  let filter: NetlinkSocket;

  beforeEach(async () => {
    inside = await Namespace.create('net');
    route = await NetlinkSocket.open('route', inside);
    filter = await NetlinkSocket.open('netfilter', inside);
  });
  afterEach(() => {
    route.close();
    filter.close();
    inside.close();
  });

  const json = async (command: string, ...args: string[]): Promise<Shown[]> => {
    const { stdout, stderr } = await inside.run(command, ['-j', ...args]);
    expect(stderr).toBe('');
    return JSON.parse(stdout);
  };
  const code = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => 'done',
      (error) => ({ name: error.constructor.name, code: error.code, errnoName: error.errnoName, message: error.message }),
    );

  test('has a bridge, and a pair of links of which one end is its port', async () => {
    await route.request(addBridge('br'), changeLink('br', { alias: 'ours', mac: '02:00:00:00:00:01', mtu: 1400, up: true }));
    const bridge = await findLink(route, 'br');
    await route.request(
      addVeth('left', { name: 'right', mac: '02:00:00:00:00:03' }, { mac: '02:00:00:00:00:02' }),
      changeLink('left', { master: bridge.index, up: true }),
    );
    const links = await listLinks(route);
    const shown = await json('ip', '-d', 'link');
    expect(
      links.map(({ index, name, kind, mac, mtu, up, master, alias }) => ({
        index,
        name,
        kind,
        mac,
        mtu,
        up,
        master: links.find((each) => each.index === master)?.name,
        alias,
      })),
    ).toEqual(
      shown.map((link) => ({
        index: link.ifindex,
        name: link.ifname,
        kind: link.linkinfo?.info_kind,
        mac: link.address,
        mtu: link.mtu,
        up: link.flags.includes('UP'),
        master: link.master,
        alias: link.ifalias,
      })),
    );
    expect(links.map(({ name, kind }) => [name, kind])).toEqual([
      ['lo', undefined],
      ['br', 'bridge'],
      ['right', 'veth'],
      ['left', 'veth'],
    ]);
    await route.request(deleteLink('left'));
    expect((await listLinks(route)).map(({ name }) => name)).toEqual(['lo', 'br']);
  });

  test('has an end of a pair in another network', async () => {
    using other = await Namespace.create('net', process.getuid?.() === 0 ? {} : { owner: await inside.owner() });
    await route.request(addVeth('here', { name: 'there', network: other.fd }));
    using there = await NetlinkSocket.open('route', other);
    const [here, far] = [await findLink(route, 'here'), await findLink(there, 'there')];
    expect([here.peer, far.peer]).toEqual([far.index, here.index]);
  });

  test('has addresses and routes', async () => {
    await route.request(addBridge('br'), changeLink('br', { up: true }));
    const { index } = await findLink(route, 'br');
    await route.request(addAddress(index, address('10.7.0.1'), 24, address('10.7.0.255')), addAddress(index, address('fd07::1'), 64));
    await route.request(
      addRoute({ to: everything(4), gateway: address('10.7.0.2') }),
      addRoute({ to: everything(6), gateway: address('fd07::2') }),
      addRoute({ to: subnet('10.8.0.0/16'), link: index, metric: 5 }),
      addRoute({ type: 'unreachable', to: subnet('10.9.0.0/16') }),
      addRoute({ type: 'local', to: everything(4), link: 1, table: 1000 }),
      addRoute({ type: 'local', to: everything(6), link: 1, table: 1000 }),
    );
    await route.request(addRule({ family: 4, mark: 0x71, table: 1000, priority: 9 }), addRule({ family: 6, mark: 0x71, table: 1000, priority: 9 }));
    const [shown] = await json('ip', 'address', 'show', 'dev', 'br');
    expect(shown?.addr_info.filter((each) => each.scope === 'global').map((each) => [each.local, each.prefixlen, each.broadcast, each.tentative])).toEqual([
      ['10.7.0.1', 24, '10.7.0.255', undefined],
      ['fd07::1', 64, undefined, undefined],
    ]);
    expect((await listAddresses(route)).filter(({ link, prefix }) => link === index && prefix === 24)).toEqual([
      { ...address('10.7.0.1'), link: index, prefix: 24 },
    ]);
    expect((await json('ip', 'route')).map((each) => [each.type, each.dst, each.gateway, each.dev, each.metric])).toEqual([
      [undefined, 'default', '10.7.0.2', 'br', undefined],
      [undefined, '10.7.0.0/24', undefined, 'br', undefined],
      [undefined, '10.8.0.0/16', undefined, 'br', 5],
      ['unreachable', '10.9.0.0/16', undefined, undefined, undefined],
    ]);
    expect((await json('ip', '-6', 'route', 'show', 'default')).map((each) => [each.dst, each.gateway, each.dev])).toEqual([['default', 'fd07::2', 'br']]);
    for (const family of ['-4', '-6']) {
      expect((await json('ip', family, 'route', 'show', 'table', '1000')).map((each) => [each.type, each.dst, each.dev])).toEqual([['local', 'default', 'lo']]);
      expect((await json('ip', family, 'rule')).filter((each) => each.table === '1000')).toMatchObject([{ priority: 9, fwmark: '0x71' }]);
    }
    expect((await listRoutes(route)).filter(({ table, type }) => table === 1000 && type === 'local').map(({ link, to }) => [link, to.family])).toEqual([
      [1, 4],
      [1, 6],
    ]);
  });

  test('filters packets', async () => {
    const table = { family: 'inet', name: 'ours.1' } as const;
    await nft.commit(filter, [
      nft.addTable(table),
      nft.addChain(table, { name: 'in', hook: 'input', policy: 'drop' }),
      nft.addChain(table, { name: 'before', hook: 'prerouting', priority: -150 }),
      nft.addChain(table, { name: 'source', type: 'nat', hook: 'postrouting', priority: 100 }),
      nft.addChain(table, { name: 'target', type: 'nat', hook: 'prerouting', priority: -100 }),
      nft.addChain(table, { name: 'other' }),
      nft.addSet(table, { name: 'hosts', keyLength: 4, keyType: 7 }),
      nft.addElements(table, 'hosts', [{ key: address('192.0.2.1').bytes }, { key: address('192.0.2.2').bytes }]),
      nft.addRule(table, 'in', [...x.isReply, x.verdict('accept')]),
      nft.addRule(table, 'in', [...x.comesFrom('eth0'), ...x.isProtocol('tcp'), ...x.toPort(80), x.counter, x.verdict('accept')]),
      nft.addRule(table, 'in', [...x.destination(4), x.lookup('hosts'), x.reject('prohibited')]),
      nft.addRule(table, 'in', [...x.isRedirected, x.jump('other')]),
      nft.addRule(table, 'in', [...x.isTo(subnet('fd00::/8')), ...x.isProtocol('tcp'), x.reject('reset')]),
      nft.addRule(table, 'before', [...x.isProtocol('udp'), ...x.tproxy(6, 5300), ...x.setMark(0x71), x.verdict('accept')]),
      nft.addRule(table, 'before', [...x.isProtocol('tcp'), ...x.tproxy(4, 5301, address('127.0.0.1')), ...x.setMark(0x71), x.verdict('accept')]),
      nft.addRule(table, 'source', [...x.isFrom(subnet('10.7.0.0/20')), ...x.leavesBy('br', false), x.masquerade]),
      nft.addRule(table, 'target', [...x.isToUs, ...x.isProtocol('tcp'), ...x.toPort(8080), ...x.dnat(address('10.7.0.2'), 80)], 'port 8080'),
      nft.addRule(table, 'target', [...x.isProtocol('tcp'), ...x.redirect(9)]),
    ]);
    const { stdout } = await inside.run('nft', ['list', 'ruleset']);
    expect(stdout).toMatchInlineSnapshot(`
      "table inet ours.1 {
      	set hosts {
      		type ipv4_addr
      		elements = { 192.0.2.1, 192.0.2.2 }
      	}

      	chain in {
      		type filter hook input priority filter; policy drop;
      		ct state established,related accept
      		iifname "eth0" tcp dport 80 counter packets 0 bytes 0 accept
      		ip daddr @hosts reject with icmpx admin-prohibited
      		ct status dnat jump other
      		ip6 daddr fd00::/8 meta l4proto tcp reject with tcp reset
      	}

      	chain before {
      		type filter hook prerouting priority mangle; policy accept;
      		meta l4proto udp tproxy ip6 to :5300 meta mark set 0x00000071 accept
      		meta l4proto tcp tproxy ip to 127.0.0.1:5301 meta mark set 0x00000071 accept
      	}

      	chain source {
      		type nat hook postrouting priority srcnat; policy accept;
      		ip saddr 10.7.0.0/20 oifname != "br" masquerade
      	}

      	chain target {
      		type nat hook prerouting priority dstnat; policy accept;
      		fib daddr type local tcp dport 8080 dnat ip to 10.7.0.2:80 comment "port 8080"
      		meta l4proto tcp redirect to :9
      	}

      	chain other {
      	}
      }
      "
    `);
    expect(await nft.listTables(filter)).toEqual([table]);
    const marked = (await nft.listRules(filter, table)).filter(({ comment }) => comment === 'port 8080');
    expect(marked.map(({ chain }) => chain)).toEqual(['target']);
    await nft.commit(filter, [...marked.map((rule) => nft.deleteRule(table, rule)), nft.deleteElements(table, 'hosts', [{ key: address('192.0.2.2').bytes }])]);
    const { stdout: later } = await inside.run('nft', ['list', 'table', 'inet', 'ours.1']);
    expect(later).not.toContain('8080');
    expect(later).not.toContain('192.0.2.2');
    await nft.commit(filter, [nft.deleteTable(table)]);
    expect(await nft.listTables(filter)).toEqual([]);
  });

  test('changes a packet filter as a whole, or not at all', async () => {
    const table = { family: 'inet', name: 'ours' } as const;
    const broken = [nft.addTable(table), nft.addRule(table, 'none', [x.verdict('drop')]), nft.addChain(table, { name: 'late' })];
    expect(await code(nft.commit(filter, broken))).toMatchInlineSnapshot(`
      {
        "code": "ERR_CLOISTER_NETWORK",
        "errnoName": "ENOENT",
        "message": "ENOENT: add a rule to the packet filter none (sendmsg): no such file or directory",
        "name": "NetworkError",
      }
    `);
    expect(await nft.listTables(filter)).toEqual([]);
  });

  test('says what it refuses, in the words of the kernel', async () => {
    expect(await code(route.request(changeLink('none', { up: true })))).toMatchInlineSnapshot(`
      {
        "code": "ERR_CLOISTER_NETWORK",
        "errnoName": "ENODEV",
        "message": "ENODEV: configure the link none (sendmsg): no such device",
        "name": "NetworkError",
      }
    `);
    await route.request(addBridge('br'));
    expect(await code(route.request(addBridge('br')))).toMatchInlineSnapshot(`
      {
        "code": "ERR_CLOISTER_NETWORK",
        "errnoName": "EEXIST",
        "message": "EEXIST: make the bridge br (sendmsg): file already exists",
        "name": "NetworkError",
      }
    `);
    // The second is refused, the first and third are done.
    expect(
      await code(route.request(addBridge('one'), addRoute({ to: everything(4), gateway: address('203.0.113.1') }), addBridge('two'))),
    ).toMatchInlineSnapshot(`
      {
        "code": "ERR_CLOISTER_NETWORK",
        "errnoName": "ENETUNREACH",
        "message": "ENETUNREACH: add a route default (sendmsg): network is unreachable (Nexthop has invalid gateway)",
        "name": "NetworkError",
      }
    `);
    expect((await listLinks(route)).map(({ name }) => name)).toEqual(['lo', 'br', 'one', 'two']);
    // And answers are still those to the questions.
    const answers = await Promise.all(['br', 'one', 'two', 'lo'].map((name) => findLink(route, name)));
    expect(answers.map(({ name }) => name)).toEqual(['br', 'one', 'two', 'lo']);
  });

  test('lists more than one datagram holds', async () => {
    const names = Array.from({ length: 300 }, (_, index) => `v${index}`);
    for (let start = 0; start < names.length; start += 100) await route.request(...names.slice(start, start + 100).map((name) => addBridge(name)));
    expect(new Set((await listLinks(route)).map(({ name }) => name))).toEqual(new Set(['lo', ...names]));
  });
});

describe('addresses as text', () => {
  test.each(['0.0.0.0', '10.1.2.3', '::', '::1', 'fe80::1', '2001:db8::1:0:0:1', '1:2:3:4:5:6:7:8', '1:0:3:4:5:6:7:8', '64:ff9b::102:304'])(
    '%s',
    async (text) => {
      const { formatAddress } = await import('../../lib/network/ip.js');
      expect(formatAddress(address(text))).toBe(text);
    },
  );

  test('that are other texts of an address, and that are none', async () => {
    const { addressAt, contains, formatAddress, formatSubnet, numberOf } = await import('../../lib/network/ip.js');
    expect(formatAddress(address('::FFFF:1.2.3.4'))).toBe('::ffff:102:304');
    expect(formatSubnet(subnet('10.255.3.9/9'))).toBe('10.128.0.0/9');
    for (const wrong of ['', '1.2.3', '1.2.3.256', 'fe80::1%lo', ':::', 'host']) expect(parseAddress(wrong)).toBeUndefined();
    for (const wrong of ['1.2.3.4/33', '::/129', '1.2.3.4/', '1.2.3.4/8/8', '/8', '1.2.3.4/-1']) expect(parseSubnet(wrong)).toBeUndefined();
    expect(contains(subnet('10.7.0.0/16'), address('10.7.255.1'))).toBe(true);
    expect(contains(subnet('10.7.0.0/16'), address('10.8.0.1'))).toBe(false);
    expect(contains(subnet('fd00::/8'), address('10.8.0.1'))).toBe(false);
    expect(formatAddress(addressAt(subnet('10.7.0.0/16'), 259))).toBe('10.7.1.3');
    expect(numberOf(subnet('10.7.0.0/16'), address('10.7.1.3'))).toBe(259);
  });
});
