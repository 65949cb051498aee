// What egress is decided by, without a network: lists, questions, and what clients say first.
import * as net from 'node:net';
import * as tls from 'node:tls';
import { describe, expect, test } from 'vitest';
import { AllowList } from '../../lib/network/egress/allow-list.js';
import { answerTo, codes, parseQuestion, type Question, types } from '../../lib/network/egress/dns-message.js';
import { namesIn } from '../../lib/network/egress/first-bytes.js';
import { mostNames } from '../../lib/network/egress/inside-addresses.js';
import { datagram, unreachable } from '../../lib/network/egress/packets.js';
import { addressOf } from '../../lib/network/egress/policy.js';
import { StandIns } from '../../lib/network/egress/stand-ins.js';
import { formatAddress, parseAddress } from '../../lib/network/ip.js';

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');

describe('an allow-list', () => {
  const list = AllowList.parse(
    [
      'Example.com',
      'api.example.org:443',
      '*.wild.net',
      '*.port.net:80',
      '10.0.0.0/8',
      '192.0.2.7:53',
      'fd00::/8',
      '[2001:db8::1]:443',
      '[2001:db8:1::]/48:8080',
      '2001:db8::2',
    ],
    'allow',
  );

  test('has names, with all ports or one', () => {
    expect([
      list.allowsName('example.com', 1),
      list.allowsName('api.example.org', 443),
      list.allowsName('a.b.wild.net', 9),
      list.allowsName('x.port.net', 80),
    ]).toEqual([true, true, true, true]);
    expect([
      list.allowsName('api.example.org', 80),
      list.allowsName('wild.net', 9),
      list.allowsName('notwild.net', 9),
      list.allowsName('example.com.evil.net', 1),
      list.allowsName('x.port.net', 81),
    ]).toEqual([false, false, false, false, false]);
    expect([list.hasName('api.example.org'), list.hasName('x.port.net'), list.hasName('port.net')]).toEqual([true, true, false]);
  });

  test('has networks, and single addresses', () => {
    const allowed = (address: string, port: number): boolean => list.allowsAddress(addressOf(address), port);
    expect([
      allowed('10.9.9.9', 1),
      allowed('192.0.2.7', 53),
      allowed('fdff::1', 1),
      allowed('2001:db8::1', 443),
      allowed('2001:db8:1::9', 8080),
      allowed('2001:db8::2', 5),
      allowed('::ffff:10.1.1.1', 5),
    ]).toEqual(Array(7).fill(true));
    expect([allowed('11.0.0.1', 1), allowed('192.0.2.7', 54), allowed('2001:db8::1', 80), allowed('2001:db8:2::9', 8080), allowed('::a00:1', 1)]).toEqual(
      Array(5).fill(false),
    );
  });

  test('takes nothing else', () => {
    const refusal = (entry: unknown): string => {
      try {
        AllowList.parse([entry], 'allow');
        return 'accepted';
      } catch (error) {
        return String(error);
      }
    };
    expect(
      [
        '',
        '*',
        '*.',
        'a b',
        'http://example.com',
        'example.com:0',
        'example.com:70000',
        'example.com:',
        '256.1.1.1',
        '1.2.3',
        '10.0.0.0/33',
        'a/8',
        '*.10.0.0.1',
        '[::1',
        '-a.com',
        7,
        null,
      ].map(refusal),
    ).toMatchInlineSnapshot(`
      [
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got """,
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "*"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "*."",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "a b"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "http://example.com"",
        "TypeError: option 'allow[0]' takes a port from 1 to 65535; got "example.com:0"",
        "TypeError: option 'allow[0]' takes a port from 1 to 65535; got "example.com:70000"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "example.com:"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "256.1.1.1"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "1.2.3"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "10.0.0.0/33"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "a/8"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "*.10.0.0.1"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "[::1"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got "-a.com"",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got 7",
        "TypeError: option 'allow[0]' takes a host, '*.domain', an address or a CIDR, each with or without ':port'; got null",
      ]
    `);
  });
});

describe('a question', () => {
  const question = (name: string, type: number = types.a, more: Buffer = Buffer.alloc(0), flags = 0x0100): Buffer => {
    const header = Buffer.alloc(12);
    header.writeUInt16BE(77, 0);
    header.writeUInt16BE(flags, 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(more.length > 0 ? 1 : 0, 10);
    const labels = name.split('.').map((label) => Buffer.concat([Buffer.of(label.length), bytes(label)]));
    return Buffer.concat([header, ...labels, Buffer.of(0, 0, type, 0, 1), more]);
  };

  test('is read, in lower case', () => {
    expect(parseQuestion(question('Api.Example.COM', types.aaaa))).toMatchObject({
      id: 77,
      name: 'api.example.com',
      type: types.aaaa,
      recursion: true,
      extended: false,
    });
    const option = Buffer.of(0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0);
    expect(parseQuestion(question('a', types.a, option))).toMatchObject({ extended: true });
  });

  test('that is none is refused by its code, or not answered', () => {
    const whole = question('example.com');
    expect(parseQuestion(Buffer.alloc(11))).toBeUndefined();
    // An answer.
    expect(parseQuestion(question('a', types.a, Buffer.alloc(0), 0x8180))).toBeUndefined();
    expect(parseQuestion(question('a', types.a, Buffer.alloc(0), 0x2800))).toEqual({ id: 77, code: codes.notImp });
    for (let length = 12; length < whole.length; length++) expect(parseQuestion(whole.subarray(0, length))).toEqual({ id: 77, code: codes.formErr });
    expect(parseQuestion(question('a\0b.com'))).toEqual({ id: 77, code: codes.nxDomain });
    expect(parseQuestion(question('a b'))).toEqual({ id: 77, code: codes.nxDomain });
    // A pointer in a question, which could lead in circles.
    expect(parseQuestion(Buffer.concat([whole.subarray(0, 12), Buffer.of(0xc0, 12, 0, 1, 0, 1)]))).toEqual({ id: 77, code: codes.formErr });
  });

  test('is answered with one address', () => {
    const asked = parseQuestion(question('example.com')) as Question;
    const answer = answerTo(asked, codes.noError, { family: 4, bytes: Uint8Array.of(198, 18, 1, 2) });
    expect(answer.toString('hex')).toMatchInlineSnapshot(`"004d81800001000100000000076578616d706c6503636f6d0000010001c00c000100010000012c0004c6120102"`);
    expect(answerTo(asked, codes.nxDomain).readUInt16BE(2)).toBe(0x8183);
  });
});

describe('stand-ins', () => {
  test('are one for each name, in both families, and found again', () => {
    const names = new StandIns();
    const text = (name: string, family: 4 | 6): string => {
      const address = names.of(name, family);
      return address ? formatAddress(address) : 'none';
    };
    expect([text('a', 4), text('b', 4), text('a', 6), text('a', 4)]).toEqual(['198.18.1.0', '198.18.1.1', 'fdc1:157:e2aa:0:100::100', '198.18.1.0']);
    expect([names.name('198.18.1.1'), names.name('fdc1:157:e2aa:0:100::101'), names.name('198.18.1.2')]).toEqual(['b', 'b', undefined]);
  });

  test('have an end, and none is given twice', () => {
    const names = new StandIns();
    const all = Array.from({ length: mostNames }, (_, index) => formatAddress(names.of(`n${index}`, 4) ?? { family: 4, bytes: new Uint8Array(4) }));
    expect(new Set(all).size).toBe(mostNames);
    expect(all.every((address) => address.startsWith('198.18.') || address.startsWith('198.19.'))).toBe(true);
    expect([names.of('one more', 4), names.of('n0', 4)?.bytes.join('.')]).toEqual([undefined, '198.18.1.0']);
  });
});

describe('what a client says first', () => {
  const hello = async (options: tls.ConnectionOptions): Promise<Buffer> => {
    const chunks: Buffer[] = [];
    await new Promise<void>((resolve) => {
      const server = net.createServer((socket) => {
        socket.on('data', (chunk) => {
          chunks.push(chunk);
          resolve();
          socket.destroy();
          server.close();
        });
        socket.on('error', () => {});
      });
      server.listen(0, '127.0.0.1', () =>
        tls.connect({ host: '127.0.0.1', port: (server.address() as net.AddressInfo).port, ...options }).on('error', () => {}),
      );
    });
    return Buffer.concat(chunks);
  };

  test('TLS: the server name, however it is cut', async () => {
    const said = await hello({ servername: 'Api.Example.com' });
    expect(namesIn(said)).toEqual(['api.example.com']);
    for (let length = 0; length < said.length; length++) expect(namesIn(said.subarray(0, length))).toBe('more');
    const body = said.subarray(5);
    const records = [...body].map((byte) => Buffer.of(0x16, 3, 1, 0, 1, byte));
    expect(namesIn(Buffer.concat(records))).toEqual(['api.example.com']);
    expect(namesIn(Buffer.concat(records.slice(0, -1)))).toBe('more');
    expect(namesIn(await hello({}))).toEqual([]);
    const broken = Buffer.from(said);
    broken.writeUInt8(255, 5 + 4 + 34);
    expect(namesIn(broken)).not.toEqual(['api.example.com']);
  });

  test('HTTP: every Host, and the target', () => {
    expect(namesIn(bytes('GET / HTTP/1.1\r\nHost: Example.com:8080\r\n\r\n'))).toEqual(['example.com']);
    expect(namesIn(bytes('GET / HTTP/1.1\nhost:a\nHOST : b.\n\n'))).toEqual(['a', 'b']);
    expect(namesIn(bytes('\r\n\r\nGET http://user@c:80/x HTTP/1.1\r\nHost: a\r\n\r\n'))).toEqual(['a', 'c']);
    expect(namesIn(bytes('GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n'))).toEqual(['a']);
    expect(namesIn(bytes('POST / HTTP/1.0\r\n\r\nHost: not this'))).toEqual([]);
    for (const part of ['G', 'GET', 'GET ', 'GET / HTTP/1.1\r\n', 'GET / HTTP/1.1\r\nHost: a\r\n']) expect(namesIn(bytes(part))).toBe('more');
  });

  test('others name nobody', () => {
    for (const said of ['SSH-2.0-x\r\n', '12 xxx', 'get / HTTP/1.1\r\n', 'EHLO me\r\n', '*1\r\n$4\r\nPING\r\n', 'PING\r\n', '\0\0\0', '\x16\x02'])
      expect(namesIn(bytes(said))).toEqual([]);
  });
});

test('packets are what the kernel would send', () => {
  const end = (text: string, port: number) => ({ address: parseAddress(text) as NonNullable<ReturnType<typeof parseAddress>>, port });
  expect([
    datagram(end('8.8.8.8', 53), end('198.18.0.1', 1234), bytes('odd'))?.toString('hex'),
    datagram(end('2001:db8::1', 53), end('fdc1::1', 1234), bytes('even'))?.toString('hex'),
    unreachable(end('8.8.8.8', 99), end('198.18.0.1', 1234)).toString('hex'),
    datagram(end('8.8.8.8', 53), end('198.18.0.1', 1234), new Uint8Array(65_001)),
  ]).toMatchInlineSnapshot(`
    [
      "4500001f000000004011a4ab08080808c6120001003504d2000b51496f6464",
      "60000000000c114020010db8000000000000000000000001fdc10000000000000000000000000001003504d2000c046e6576656e",
      "45000038000000004001a4a208080808c61200010303f7bf000000004500001c000000004011a4aec61200010808080804d2006300080000",
      undefined,
    ]
  `);
});
