// Every option's refusal, word by word; and the defaults.
import { spawnIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { defaultMaskedPaths, defaultReadonlyPaths, settingsOf } from '../../lib/spawn/settings.js';
import type { SpawnOptions } from '../../lib/spawn/types.js';

const settings = (options: object) => settingsOf('program', [], options as SpawnOptions);
const refusal = (options: object): string => {
  try {
    settings(options);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return error.message;
  }
  return 'accepted';
};
const of = (option: string, ...values: unknown[]): Record<string, string> =>
  Object.fromEntries(values.map((value, index) => [`${index}`, refusal({ [option]: value })]));

const range = (inside: number, outside: number, count: number) => ({ inside, outside, count });

describe('refused, with what it takes', () => {
  test('where it runs', () => {
    expect(of('rootfs', 1, 'relative', '', 'a\0b', {}, null)).toMatchInlineSnapshot(`
      {
        "0": "option 'rootfs' takes an OverlayRootfs, an Image, or the absolute path of a directory; got 1",
        "1": "option 'rootfs' takes an OverlayRootfs, an Image, or the absolute path of a directory; got "relative"",
        "2": "option 'rootfs' takes an OverlayRootfs, an Image, or the absolute path of a directory; got """,
        "3": "option 'rootfs' takes an OverlayRootfs, an Image, or the absolute path of a directory; got "a\\u0000b"",
        "4": "option 'rootfs' takes an OverlayRootfs, an Image, or the absolute path of a directory; got an instance of Object",
        "5": "option 'rootfs' takes an OverlayRootfs, an Image, or the absolute path of a directory; got null",
      }
    `);
    expect(of('readonly', 'yes', 1, null)).toMatchInlineSnapshot(`
      {
        "0": "option 'readonly' takes true or false; got "yes"",
        "1": "option 'readonly' takes true or false; got 1",
        "2": "option 'readonly' takes true or false; got null",
      }
    `);
    expect(of('cwd', 'relative', '', 7, '/a\0b')).toMatchInlineSnapshot(`
      {
        "0": "option 'cwd' takes an absolute path, such as '/work'; got "relative"",
        "1": "option 'cwd' takes an absolute path, such as '/work'; got """,
        "2": "option 'cwd' takes an absolute path, such as '/work'; got 7",
        "3": "option 'cwd' takes an absolute path, such as '/work'; got "/a\\u0000b"",
      }
    `);
    expect(of('env', 'PATH=/bin', null, ['A=b'], { '': 'x' }, { 'A=B': 'x' }, { A: 'x\0y' })).toMatchInlineSnapshot(`
      {
        "0": "option 'env' takes an object; got "PATH=/bin"",
        "1": "option 'env' takes an object; got null",
        "2": "option 'env' takes an object; got an array of 1",
        "3": "option 'env' takes names without '=' and NUL bytes; got """,
        "4": "option 'env' takes names without '=' and NUL bytes; got "A=B"",
        "5": "option 'env.A' takes a string without NUL bytes; got "x\\u0000y"",
      }
    `);
    expect(of('hostname', '', 'a b', 'ä', 'x'.repeat(65), 7)).toMatchInlineSnapshot(`
      {
        "0": "option 'hostname' takes at most 64 letters, digits, dots, dashes or underscores; got """,
        "1": "option 'hostname' takes at most 64 letters, digits, dots, dashes or underscores; got "a b"",
        "2": "option 'hostname' takes at most 64 letters, digits, dots, dashes or underscores; got "ä"",
        "3": "option 'hostname' takes at most 64 letters, digits, dots, dashes or underscores; got "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."",
        "4": "option 'hostname' takes at most 64 letters, digits, dots, dashes or underscores; got 7",
      }
    `);
    expect(of('domainname', '', 'a/b')).toMatchInlineSnapshot(`
      {
        "0": "option 'domainname' takes at most 64 letters, digits, dots, dashes or underscores; got """,
        "1": "option 'domainname' takes at most 64 letters, digits, dots, dashes or underscores; got "a/b"",
      }
    `);
  });

  test('mounts', () => {
    const bad = [
      'x',
      [1],
      [null],
      [{}],
      [{ type: 'nfs', target: '/x' }],
      [{ type: 'tmpfs' }],
      [{ type: 'tmpfs', target: 'x' }],
      [{ type: 'tmpfs', target: '/' }],
      [{ type: 'tmpfs', target: '/../..' }],
      [{ type: 'tmpfs', target: '/x', size: '1X' }],
      [{ type: 'tmpfs', target: '/x', size: '0K' }],
      [{ type: 'tmpfs', target: '/x', mode: 0o10000 }],
      [{ type: 'tmpfs', target: '/x', readonly: true }],
      [{ type: 'bind', target: '/x' }],
      [{ type: 'bind', target: '/x', source: 'rel' }],
      [{ type: 'bind', target: '/x', source: '/y', readonly: 1 }],
      [{ type: 'bind', target: '/x', source: '/y', recursive: 'no' }],
      [{ type: 'bind', target: '/x', source: '/y', idMap: {} }],
      [{ type: 'bind', target: '/x', source: '/y', idMap: 'auto' }],
      [{ type: 'bind', target: '/x', source: '/y', idMap: 'self' }],
      [{ type: 'proc', target: '/x', size: 1 }],
      [{ type: 'file', target: '/x' }],
      [{ type: 'file', target: '/x', contents: 7 }],
      [{ type: 'file', target: '/x', contents: '', mode: 0o1777 }],
      [{ type: 'overlay', target: '/x' }],
      [{ type: 'overlay', target: '/x', source: '/y' }],
      [{ type: 'overlay', target: '/x', layers: [] }],
      [{ type: 'overlay', target: '/x', layers: ['rel'] }],
      [{ type: 'overlay', target: '/x', layers: ['/y'], upper: '/u' }],
      [{ type: 'overlay', target: '/x', layers: ['/y'], work: '/w' }],
    ];
    expect(bad.map((mounts) => refusal({ mounts }))).toMatchInlineSnapshot(`
      [
        "option 'mounts' takes an array; got "x"",
        "option 'mounts[0]' takes an object; got 1",
        "option 'mounts[0]' takes an object; got null",
        "option 'mounts[0].type' takes 'bind', 'tmpfs', 'proc', 'sysfs', 'devpts', 'mqueue', 'cgroup', 'overlay' or 'file'; got undefined",
        "option 'mounts[0].type' takes 'bind', 'tmpfs', 'proc', 'sysfs', 'devpts', 'mqueue', 'cgroup', 'overlay' or 'file'; got "nfs"",
        "option 'mounts[0].target' takes an absolute path, such as '/work'; got undefined",
        "option 'mounts[0].target' takes an absolute path, such as '/work'; got "x"",
        "option 'mounts[0].target' takes a path below '/': the root itself is \`rootfs\`; got "/"",
        "option 'mounts[0].target' takes a path below '/': the root itself is \`rootfs\`; got "/../.."",
        "option 'mounts[0].size' takes bytes: a number of them, or a string such as '512M' (K, M, G, T are powers of 1024); got "1X"",
        "option 'mounts[0].size' takes more than 0 bytes; got "0K"",
        "option 'mounts[0].mode' takes permissions from 0 to 0o7777; got 4096",
        "option 'mounts[0].readonly' takes nothing: there is no such option; got true",
        "option 'mounts[0].source' takes an absolute path, such as '/work'; got undefined",
        "option 'mounts[0].source' takes an absolute path, such as '/work'; got "rel"",
        "option 'mounts[0].readonly' takes true or false; got 1",
        "option 'mounts[0].recursive' takes true or false; got "no"",
        "option 'mounts[0].idMap.uids' takes ranges { inside, outside, count } of whole numbers that do not overlap; got undefined",
        "option 'mounts[0].idMap' takes { uids, gids } of ranges; got "auto"",
        "option 'mounts[0].idMap' takes { uids, gids } of ranges; got "self"",
        "option 'mounts[0].size' takes nothing: there is no such option; got 1",
        "option 'mounts[0].contents' takes a string or bytes; got undefined",
        "option 'mounts[0].contents' takes a string or bytes; got 7",
        "option 'mounts[0].mode' takes permissions from 0 to 0o777; got 1023",
        "option 'mounts[0].layers' takes an array of at least one directory, or give \`source\`; got undefined",
        "option 'mounts[0].source' takes an OverlayRootfs; got "/y"",
        "option 'mounts[0].layers' takes an array of at least one directory, or give \`source\`; got an array of 0",
        "option 'mounts[0].layers[0]' takes an absolute path, such as '/work'; got "rel"",
        "option 'mounts[0].upper' takes a directory together with \`work\`, another one beside it; got "/u"",
        "option 'mounts[0].upper' takes a directory together with \`work\`, another one beside it; got undefined",
      ]
    `);
  });

  test('what is isolated', () => {
    expect(of('namespaces', 'new', { net: 'x' }, { nets: 'new' }, { net: 1 }, [])).toMatchInlineSnapshot(`
      {
        "0": "option 'namespaces' takes an object; got "new"",
        "1": "option 'namespaces.net' takes 'new', 'host' or a net namespace; got "x"",
        "2": "option 'namespaces.nets' takes nothing: there is no such option; got "new"",
        "3": "option 'namespaces.net' takes 'new', 'host' or a net namespace; got 1",
        "4": "option 'namespaces' takes an object; got an array of 0",
      }
    `);
    expect(of('idMap', 'none', {}, null, { uids: [], gids: [] }, { uids: [range(0, 0, 0)], gids: [range(0, 0, 1)] })).toMatchInlineSnapshot(`
      {
        "0": "option 'idMap' takes 'auto', 'self', or { uids, gids } of ranges; got "none"",
        "1": "option 'idMap.uids' takes ranges { inside, outside, count } of whole numbers that do not overlap; got undefined",
        "2": "option 'idMap' takes 'auto', 'self', or { uids, gids } of ranges; got null",
        "3": "option 'idMap.uids' takes ranges { inside, outside, count } of whole numbers that do not overlap; got an array of 0",
        "4": "option 'idMap.uids' takes ranges { inside, outside, count } of whole numbers that do not overlap; got an array of 1",
      }
    `);
    expect(of('timeOffsets', 5, { monotonic: 'x' }, { monotonic: Number.NaN }, { realtime: 1 }, { boottime: Infinity })).toMatchInlineSnapshot(`
      {
        "0": "option 'timeOffsets' takes an object; got 5",
        "1": "option 'timeOffsets.monotonic' takes milliseconds, negative or positive; got "x"",
        "2": "option 'timeOffsets.monotonic' takes milliseconds, negative or positive; got NaN",
        "3": "option 'timeOffsets.realtime' takes nothing: there is no such option; got 1",
        "4": "option 'timeOffsets.boottime' takes milliseconds, negative or positive; got Infinity",
      }
    `);
    expect(
      of(
        'network',
        'bridge',
        null,
        [],
        { port: 1 },
        { ports: 1 },
        { ports: [1] },
        { ports: [{ host: 80 }] },
        { ports: [{ host: -1, guest: 80 }] },
        { ports: [{ host: 1, guest: 80, address: 'example.com' }] },
        { ports: [{ host: 1, guest: 80, protocol: 'sctp' }] },
      ),
    ).toMatchInlineSnapshot(`
      {
        "0": "option 'network' takes 'none', 'host', a NetNamespace, or an object with ports, egress, dns and bandwidth; got "bridge"",
        "1": "option 'network' takes 'none', 'host', a NetNamespace, or an object with ports, egress, dns and bandwidth; got null",
        "2": "option 'network' takes 'none', 'host', a NetNamespace, or an object with ports, egress, dns and bandwidth; got an array of 0",
        "3": "option 'network.port' takes nothing: there is no such option; got 1",
        "4": "option 'network.ports' takes an array; got 1",
        "5": "option 'network.ports[0]' takes an object; got 1",
        "6": "option 'network.ports[0].guest' takes a whole number from 1 to 65535; got undefined",
        "7": "option 'network.ports[0].host' takes a whole number from 0 to 65535; got -1",
        "8": "option 'network.ports[0].address' takes an IPv4 or IPv6 address, or 'localhost'; got "example.com"",
        "9": "option 'network.ports[0].protocol' takes 'tcp' or 'udp'; got "sctp"",
      }
    `);
  });

  test('what it may do', () => {
    expect(
      of(
        'user',
        '',
        ':x',
        'a:b:c',
        'a\0',
        { uid: -1 },
        { uid: 1.5 },
        { uid: 0xffffffff },
        { gid: 'x' },
        { groups: [-1] },
        { groups: 7 },
        { name: 'x' },
        null,
        7,
      ),
    ).toMatchInlineSnapshot(`
      {
        "0": "option 'user' takes 'name', 'name:group', or numbers instead of names; got """,
        "1": "option 'user' takes 'name', 'name:group', or numbers instead of names; got ":x"",
        "10": "option 'user.name' takes nothing: there is no such option; got "x"",
        "11": "option 'user' takes a name, 'name:group', or { uid, gid, groups }; got null",
        "12": "option 'user' takes a name, 'name:group', or { uid, gid, groups }; got 7",
        "2": "option 'user' takes 'name', 'name:group', or numbers instead of names; got "a:b:c"",
        "3": "option 'user' takes 'name', 'name:group', or numbers instead of names; got "a\\u0000"",
        "4": "option 'user.uid' takes a whole number from 0 to 4294967294; got -1",
        "5": "option 'user.uid' takes a whole number from 0 to 4294967294; got 1.5",
        "6": "option 'user.uid' takes a whole number from 0 to 4294967294; got 4294967295",
        "7": "option 'user.gid' takes a whole number from 0 to 4294967294; got "x"",
        "8": "option 'user.groups[0]' takes a whole number from 0 to 4294967294; got -1",
        "9": "option 'user.groups' takes an array; got 7",
      }
    `);
    expect(
      of(
        'capabilities',
        'ALL',
        ['NET_ADMIN'],
        ['CAP_NOTHING'],
        { all: [] },
        { effective: ['CAP_KILL'] },
        { permitted: ['CAP_KILL'], ambient: ['CAP_KILL'] },
        { bounding: 'CAP_KILL' },
      ),
    ).toMatchInlineSnapshot(`
      {
        "0": "option 'capabilities' takes an array of names, or an object of the five sets; got "ALL"",
        "1": "option 'capabilities' takes names as in capabilities(7), such as 'CAP_NET_BIND_SERVICE'; got "NET_ADMIN"",
        "2": "option 'capabilities' takes names as in capabilities(7), such as 'CAP_NET_BIND_SERVICE'; got "CAP_NOTHING"",
        "3": "option 'capabilities.all' takes nothing: there is no such option; got an array of 0",
        "4": "option 'capabilities.effective' takes only what capabilities.permitted has too; got an array of 1",
        "5": "option 'capabilities.ambient' takes only what permitted and inheritable have too; got an array of 1",
        "6": "option 'capabilities.bounding' takes an array; got "CAP_KILL"",
      }
    `);
    expect(of('noNewPrivileges', 'false', 0)).toMatchInlineSnapshot(`
      {
        "0": "option 'noNewPrivileges' takes true or false; got "false"",
        "1": "option 'noNewPrivileges' takes true or false; got 0",
      }
    `);
    expect(of('maskedPaths', '/x', ['x'], [7])).toMatchInlineSnapshot(`
      {
        "0": "option 'maskedPaths' takes an array; got "/x"",
        "1": "option 'maskedPaths[0]' takes an absolute path, such as '/work'; got "x"",
        "2": "option 'maskedPaths[0]' takes an absolute path, such as '/work'; got 7",
      }
    `);
    expect(of('readonlyPaths', '/x', ['x'])).toMatchInlineSnapshot(`
      {
        "0": "option 'readonlyPaths' takes an array; got "/x"",
        "1": "option 'readonlyPaths[0]' takes an absolute path, such as '/work'; got "x"",
      }
    `);
    expect(
      of(
        'rlimits',
        7,
        { files: 1 },
        { nofile: -1 },
        { nofile: 1.5 },
        { nofile: '1' },
        { nofile: { soft: 2, hard: 1 } },
        { nofile: { soft: 1 } },
        { nofile: { soft: 1, hard: 2, max: 3 } },
        { cpu: Number.NaN },
        { nofile: null },
      ),
    ).toMatchInlineSnapshot(`
      {
        "0": "option 'rlimits' takes an object; got 7",
        "1": "option 'rlimits.files' takes nothing: there is no such option; got 1",
        "2": "option 'rlimits.nofile' takes a whole number, Infinity, or { soft, hard } of them; got -1",
        "3": "option 'rlimits.nofile' takes a whole number, Infinity, or { soft, hard } of them; got 1.5",
        "4": "option 'rlimits.nofile' takes a whole number, Infinity, or { soft, hard } of them; got "1"",
        "5": "option 'rlimits.nofile' takes a soft limit that is not above the hard one; got an instance of Object",
        "6": "option 'rlimits.nofile' takes a whole number, Infinity, or { soft, hard } of them; got an instance of Object",
        "7": "option 'rlimits.nofile.max' takes nothing: there is no such option; got 3",
        "8": "option 'rlimits.cpu' takes a whole number, Infinity, or { soft, hard } of them; got NaN",
        "9": "option 'rlimits.nofile' takes a whole number, Infinity, or { soft, hard } of them; got null",
      }
    `);
    expect(
      of(
        'sysctl',
        7,
        { 'kernel.core_pattern': 'x' },
        { 'vm.swappiness': '1' },
        { 'net.ipv4.ip_forward': 1 },
        { 'net/ipv4/ip_forward': '1' },
        { 'net...x': '1' },
        { 'net.ipv4.ip_forward': '1\0' },
      ),
    ).toMatchInlineSnapshot(`
      {
        "0": "option 'sysctl' takes an object of names and values; got 7",
        "1": "option 'sysctl.kernel.core_pattern' takes the name of a sysctl that a namespace has for itself: net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*; got "x"",
        "2": "option 'sysctl.vm.swappiness' takes the name of a sysctl that a namespace has for itself: net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*; got "1"",
        "3": "option 'sysctl.net.ipv4.ip_forward' takes a string; got 1",
        "4": "option 'sysctl.net/ipv4/ip_forward' takes the name of a sysctl that a namespace has for itself: net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*; got "1"",
        "5": "option 'sysctl.net...x' takes the name of a sysctl that a namespace has for itself: net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*; got "1"",
        "6": "option 'sysctl.net.ipv4.ip_forward' takes a string; got "1\\u0000"",
      }
    `);
    expect(of('umask', -1, 0o1000, '022')).toMatchInlineSnapshot(`
      {
        "0": "option 'umask' takes permissions from 0 to 0o777; got -1",
        "1": "option 'umask' takes permissions from 0 to 0o777; got 512",
        "2": "option 'umask' takes permissions from 0 to 0o777; got "022"",
      }
    `);
    expect(of('oomScoreAdj', -1001, 1001, 1.5)).toMatchInlineSnapshot(`
      {
        "0": "option 'oomScoreAdj' takes a whole number from -1000 to 1000; got -1001",
        "1": "option 'oomScoreAdj' takes a whole number from -1000 to 1000; got 1001",
        "2": "option 'oomScoreAdj' takes a whole number from -1000 to 1000; got 1.5",
      }
    `);
  });

  test('how it runs', () => {
    expect(of('stdio', 'all', ['x'], [-1], [1.5], [{}], 7, Array(33).fill('pipe'))).toMatchInlineSnapshot(`
      {
        "0": "option 'stdio' takes 'pipe', 'ignore' or 'inherit'; got "all"",
        "1": "option 'stdio[0]' takes 'pipe', 'ignore' or 'inherit'; got "x"",
        "2": "option 'stdio[0]' takes a whole number from 0 to 2147483647; got -1",
        "3": "option 'stdio[0]' takes a whole number from 0 to 2147483647; got 1.5",
        "4": "option 'stdio[0]' takes 'pipe', 'ignore', 'inherit', a descriptor or a stream that has one; got an instance of Object",
        "5": "option 'stdio' takes 'pipe', 'ignore', 'inherit' or an array; got 7",
        "6": "option 'stdio' takes at most 32 entries; got an array of 33",
      }
    `);
    expect(of('tty', 1, {}, { columns: 80 }, { columns: 0, rows: 1 }, { columns: 1, rows: 70_000 }, { columns: 1, rows: 1, x: 1 })).toMatchInlineSnapshot(`
      {
        "0": "option 'tty' takes true, false or { columns, rows }; got 1",
        "1": "option 'tty.columns' takes a whole number from 1 to 65535; got undefined",
        "2": "option 'tty.rows' takes a whole number from 1 to 65535; got undefined",
        "3": "option 'tty.columns' takes a whole number from 1 to 65535; got 0",
        "4": "option 'tty.rows' takes a whole number from 1 to 65535; got 70000",
        "5": "option 'tty.x' takes nothing: there is no such option; got 1",
      }
    `);
    expect(of('init', 1)).toMatchInlineSnapshot(`
      {
        "0": "option 'init' takes true or false; got 1",
      }
    `);
    expect(of('timeout', 0, -1, '5', 2 ** 31, Number.NaN)).toMatchInlineSnapshot(`
      {
        "0": "option 'timeout' takes milliseconds: more than 0, at most 2147483647; got 0",
        "1": "option 'timeout' takes milliseconds: more than 0, at most 2147483647; got -1",
        "2": "option 'timeout' takes milliseconds: more than 0, at most 2147483647; got "5"",
        "3": "option 'timeout' takes milliseconds: more than 0, at most 2147483647; got 2147483648",
        "4": "option 'timeout' takes milliseconds: more than 0, at most 2147483647; got NaN",
      }
    `);
    expect(of('outputLimit', '1', '1KB', -1, 1.5, Number.NaN, '1e3K')).toMatchInlineSnapshot(`
      {
        "0": "option 'outputLimit' takes bytes: a number of them, or a string such as '512M' (K, M, G, T are powers of 1024); got "1"",
        "1": "option 'outputLimit' takes bytes: a number of them, or a string such as '512M' (K, M, G, T are powers of 1024); got "1KB"",
        "2": "option 'outputLimit' takes bytes: a number of them, or a string such as '512M' (K, M, G, T are powers of 1024); got -1",
        "3": "option 'outputLimit' takes bytes: a number of them, or a string such as '512M' (K, M, G, T are powers of 1024); got 1.5",
        "4": "option 'outputLimit' takes bytes: a number of them, or a string such as '512M' (K, M, G, T are powers of 1024); got NaN",
        "5": "option 'outputLimit' takes bytes: a number of them, or a string such as '512M' (K, M, G, T are powers of 1024); got "1e3K"",
      }
    `);
    expect(of('signal', {}, 'x')).toMatchInlineSnapshot(`
      {
        "0": "option 'signal' takes an AbortSignal; got an instance of Object",
        "1": "option 'signal' takes an AbortSignal; got "x"",
      }
    `);
    expect(of('killSignal', 'TERM', 15, 'SIGNOTHING')).toMatchInlineSnapshot(`
      {
        "0": "option 'killSignal' takes the name of a signal, such as 'SIGTERM'; got "TERM"",
        "1": "option 'killSignal' takes the name of a signal, such as 'SIGTERM'; got 15",
        "2": "option 'killSignal' takes the name of a signal, such as 'SIGTERM'; got "SIGNOTHING"",
      }
    `);
    expect(of('killGrace', 0, '5s')).toMatchInlineSnapshot(`
      {
        "0": "option 'killGrace' takes milliseconds: more than 0, at most 2147483647; got 0",
        "1": "option 'killGrace' takes milliseconds: more than 0, at most 2147483647; got "5s"",
      }
    `);
    expect(of('detached', 'yes')).toMatchInlineSnapshot(`
      {
        "0": "option 'detached' takes true or false; got "yes"",
      }
    `);
  });

  test('what only a later version has', () => {
    expect({
      bridge: refusal({ network: { egress: 'deny' } }),
    }).toMatchInlineSnapshot(`
      {
        "bridge": "accepted",
      }
    `);
    // But what is the default anyway is no lie.
    expect(refusal({ fallback: 'never' })).toBe('accepted');
  });

  test('combinations', () => {
    expect(
      [
        { tty: true, stdio: 'pipe' },
        { stdio: 'ignore', outputLimit: 5 },
        { namespaces: { mount: 'host' }, mounts: [] },
        { namespaces: { mount: 'host' }, readonly: true },
        { namespaces: { mount: 'host' }, maskedPaths: [] },
        { namespaces: { net: 'host' }, sysctl: { 'net.ipv4.ip_forward': '1' } },
        { namespaces: { ipc: 'host' }, sysctl: { 'kernel.shmmax': '1' } },
        { namespaces: { uts: 'host' }, domainname: 'x' },
        { namespaces: { net: 'host' }, network: 'none' },
      ].map(refusal),
    ).toMatchInlineSnapshot(`
      [
        "option 'stdio' takes nothing with tty: the three streams are the terminal; got "pipe"",
        "option 'outputLimit' takes nothing when neither stdout nor stderr is piped: there is nothing to count; got 5",
        "option 'mounts' takes nothing when namespaces.mount is not 'new'; got an array of 0",
        "option 'readonly' takes nothing when namespaces.mount is not 'new'; got true",
        "option 'maskedPaths' takes nothing when namespaces.mount is not 'new'; got an array of 0",
        "option 'sysctl.net.ipv4.ip_forward' takes nothing when namespaces.net is not 'new'; got "1"",
        "option 'sysctl.kernel.shmmax' takes nothing when namespaces.ipc is not 'new'; got "1"",
        "option 'domainname' takes nothing when namespaces.uts is not 'new'; got "x"",
        "option 'network' takes the same as namespaces.net, if both are given; got "none"",
      ]
    `);
  });

  test('a name that nobody knows', () => {
    expect([refusal({ timeOut: 5 }), refusal({ shell: true }), refusal({ toString: 1 })]).toMatchInlineSnapshot(`
      [
        "option 'timeOut' takes nothing: there is no such option; got 5",
        "option 'shell' takes nothing: there is no such option, but the shell as the command: ('sh', ['-c', '…']); got true",
        "option 'toString' takes nothing: there is no such option; got 1",
      ]
    `);
  });

  test('command, arguments, options', () => {
    const thrown = (...args: unknown[]): string => {
      try {
        settingsOf(args[0], args[1], args[2] as SpawnOptions);
        return 'accepted';
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect([
      thrown('', [], {}),
      thrown(7, [], {}),
      thrown('a\0b', [], {}),
      thrown('x', [7], {}),
      thrown('x', ['a\0'], {}),
      thrown('x', 'args', {}),
      thrown('x', [], null),
    ]).toMatchInlineSnapshot(`
      [
        "option 'command' takes the name or path of a program; got """,
        "option 'command' takes the name or path of a program; got 7",
        "option 'command' takes the name or path of a program; got "a\\u0000b"",
        "option 'args[0]' takes a string without NUL bytes; got 7",
        "option 'args[0]' takes a string without NUL bytes; got "a\\u0000"",
        "option 'args' takes an array; got "args"",
        "option 'options' takes an object; got null",
      ]
    `);
  });

  test('synchronously, by spawnIsolated', () => {
    expect(() => spawnIsolated('x', [], { umask: -1 })).toThrow(TypeError);
    expect(() => spawnIsolated('x', 'args' as unknown as string[])).toThrow(TypeError);
  });
});

describe('accepted', () => {
  test('the defaults', () => {
    const { seccomp, ...rest } = settings({});
    expect(seccomp).toMatchObject({ profile: { name: 'default', flags: 0 } });
    expect(rest).toEqual({
      command: 'program',
      args: [],
      rootfs: undefined,
      readonly: false,
      mounts: [],
      cwd: undefined,
      env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', TERM: 'xterm', LANG: 'C.UTF-8' },
      homeOfUser: false,
      hostname: undefined,
      domainname: undefined,
      namespaces: { cgroup: 'new', ipc: 'new', mount: 'new', net: 'new', pid: 'new', time: 'host', user: 'new', uts: 'new' },
      idMap: 'auto',
      timeOffsets: undefined,
      user: { uid: 0, gid: 0, groups: [] },
      capabilities: { bounding: 0n, effective: 0n, permitted: 0n, inheritable: 0n, ambient: 0n },
      noNewPrivileges: true,
      maskedPaths: defaultMaskedPaths,
      readonlyPaths: defaultReadonlyPaths,
      rlimits: [],
      sysctl: [],
      umask: 0o022,
      fallback: 'never',
      speculation: [],
      coreScheduling: false,
      oomScoreAdj: undefined,
      stdio: ['pipe', 'pipe', 'pipe'],
      tty: undefined,
      init: false,
      timeout: undefined,
      outputLimit: undefined,
      signal: undefined,
      killSignal: 'SIGKILL',
      killGrace: 5000,
      detached: false,
    });
  });

  test('undefined is as if it were not there', () => {
    const names = [
      'rootfs',
      'readonly',
      'mounts',
      'cwd',
      'env',
      'hostname',
      'namespaces',
      'idMap',
      'timeOffsets',
      'network',
      'cgroup',
      'user',
      'seccomp',
      'stdio',
      'tty',
      'timeout',
      'signal',
      'fallback',
    ];
    expect(settings(Object.fromEntries(names.map((name) => [name, undefined])))).toEqual(settings({}));
  });

  test('what is given is not changed, nor kept', () => {
    const options = { env: { A: '1' }, mounts: [{ type: 'tmpfs', target: '/x/../y//z' }], user: { uid: 5 } } as const;
    const frozen = Object.freeze({ ...options, mounts: Object.freeze(options.mounts.map((mount) => Object.freeze(mount))) });
    const result = settings(frozen);
    expect(result.mounts).toEqual([{ type: 'tmpfs', target: '/y/z', size: undefined, mode: 0o755 }]);
    expect(result.env).not.toBe(options.env);
  });

  test('timeOffsets ask for a time namespace', () => {
    expect(settings({ timeOffsets: { monotonic: 5 } })).toMatchObject({ namespaces: { time: 'new' }, timeOffsets: { monotonic: 5, boottime: 0 } });
  });

  test('tty: the streams are the terminal', () => {
    expect(settings({ tty: true })).toMatchObject({ tty: { columns: 80, rows: 24 }, stdio: ['pipe', 'pipe', 'ignore'] });
  });
});
