import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseIdMap } from '../../lib/host/caller.js';
import { parseMountInfo, visibleMounts } from '../../lib/host/mountinfo.js';
import { namespaceTypes } from '../../lib/namespace/flags.js';
import { native } from '../../lib/native.js';
import { PlanBuilder } from '../../lib/plan/builder.js';
import { runPlan } from '../../lib/plan/run.js';
import { stepKinds } from '../../lib/plan/steps.js';
import * as structs from '../../lib/plan/structs.js';
import { capabilitiesOf, capabilityMask, capabilityNames } from '../../lib/security/capabilities.js';
import { checkIdMap, mapText, outside, sameMap } from '../../lib/security/id-map.js';
import { checkSysctl } from '../../lib/security/sysctl.js';
import { parseBytes } from '../../lib/units.js';
import { repository } from '../helpers/fixtures.js';

describe('bytes', () => {
  test.each([
    [0, 0],
    [1, 1],
    ['1K', 1024],
    ['1.5K', 1536],
    ['512M', 512 * 2 ** 20],
    ['2G', 2 ** 31],
    ['1T', 2 ** 40],
    ['0.1K', 102],
  ])('%s is %d', (value, bytes) => expect(parseBytes(value, 'x')).toBe(bytes));
  test.each([
    [-1],
    [1.5],
    [Number.NaN],
    [Infinity],
    ['1'],
    ['1k'],
    ['1KB'],
    [' 1K'],
    ['1K '],
    ['-1K'],
    [''],
    ['K'],
    ['1e3K'],
    [null],
    [undefined],
    [1n],
    ['99999999T'],
  ])('%s is refused', (value) => expect(() => parseBytes(value, 'size')).toThrow("option 'size' takes bytes"));
});

describe('mountinfo', () => {
  const line = (id: number, parent: number, path: string, type = 'ext4', root = '/') =>
    `${id} ${parent} 8:1 ${root} ${path} rw,relatime shared:1 - ${type} /dev/x rw`;

  test('fields', () => {
    expect(parseMountInfo(`${line(36, 35, '/mnt2', 'ext3', '/mnt1')}\n`)).toEqual([
      { id: 36, parent: 35, root: '/mnt1', path: '/mnt2', options: ['rw', 'relatime'], type: 'ext3', superOptions: ['rw'] },
    ]);
    expect(parseMountInfo('36 35 98:0 / /x rw - tmpfs none rw')[0]).toMatchObject({ path: '/x', type: 'tmpfs' });
    expect(parseMountInfo('')).toEqual([]);
  });

  test('octal escapes, and what only looks like one', () => {
    const paths = ['/a\\040b', '/tab\\011', '/new\\012line', '/back\\134slash', '/back\\134040', '/ä\\040ö', '/x\\04'];
    expect(parseMountInfo(paths.map((path, index) => line(index, 1, path)).join('\n')).map(({ path }) => path)).toEqual([
      '/a b',
      '/tab\t',
      '/new\nline',
      '/back\\slash',
      '/back\\040',
      '/ä ö',
      '/x\\04',
    ]);
  });

  test('the source may hold what looks like the separator', () => {
    expect(parseMountInfo('36 35 98:0 / /x rw shared:2 - fuse a\\040-\\040b rw')[0]).toMatchObject({ type: 'fuse' });
  });

  test('of two at one place, the upper is seen', () => {
    const mounts = parseMountInfo([line(1, 0, '/'), line(2, 1, '/a', 'ext4'), line(3, 2, '/a', 'tmpfs')].join('\n'));
    expect(visibleMounts(mounts).map(({ id }) => id)).toEqual([1, 3]);
  });

  test('a mount over a directory hides what was mounted below it', () => {
    const mounts = parseMountInfo([line(1, 0, '/'), line(2, 1, '/a/b'), line(3, 1, '/a', 'tmpfs'), line(4, 3, '/a/c')].join('\n'));
    expect(visibleMounts(mounts).map(({ path }) => path)).toEqual(['/', '/a', '/a/c']);
  });

  test('a mount in a mount is seen', () => {
    const mounts = parseMountInfo([line(1, 0, '/'), line(2, 1, '/a'), line(3, 2, '/a/b'), line(4, 3, '/a/b/c')].join('\n'));
    expect(visibleMounts(mounts).map(({ path }) => path)).toEqual(['/', '/a', '/a/b', '/a/b/c']);
  });

  test('names that begin alike are not below each other', () => {
    const mounts = parseMountInfo([line(1, 0, '/'), line(2, 1, '/ab'), line(3, 1, '/a')].join('\n'));
    expect(visibleMounts(mounts).map(({ path }) => path)).toEqual(['/', '/a', '/ab']);
  });

  test('the root covered by another root', () => {
    const mounts = parseMountInfo([line(1, 0, '/'), line(2, 1, '/old'), line(3, 1, '/', 'tmpfs'), line(4, 3, '/new')].join('\n'));
    expect(visibleMounts(mounts).map(({ path, type }) => [path, type])).toEqual([
      ['/', 'tmpfs'],
      ['/new', 'ext4'],
    ]);
  });

  test("this machine's own can be read", () => {
    const mounts = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
    expect(mounts.every(({ id, parent, path, type }) => id > 0 && parent >= 0 && path.startsWith('/') && type !== '')).toBe(true);
    expect(visibleMounts(mounts).map(({ path }) => path)).toContain('/proc');
  });
});

describe('id maps', () => {
  const range = (inside: number, out: number, count: number) => ({ inside, outside: out, count });
  const check = (...uids: ReturnType<typeof range>[]) => checkIdMap({ uids, gids: [range(0, 0, 1)] }, 'idMap');

  test('ranges that touch are no overlap', () => {
    expect(check(range(0, 1000, 10), range(10, 2000, 10), range(30, 1010, 5))).toMatchObject({ uids: [{}, {}, {}] });
  });

  test.each([
    ['inside', [range(0, 1000, 10), range(9, 2000, 1)]],
    ['outside', [range(0, 1000, 10), range(20, 1009, 1)]],
    ['inside, in any order', [range(9, 2000, 1), range(0, 1000, 10)]],
  ])('that overlap %s are refused', (_, ranges) =>
    expect(() => check(...ranges)).toThrow("option 'idMap.uids' takes ranges { inside, outside, count } of whole numbers that do not overlap"),
  );

  test.each([[range(0, 0, 0)], [range(-1, 0, 1)], [range(0, 0.5, 1)], [range(0, 0, 2 ** 32)], [range(2 ** 32 - 1, 0, 1)], [{} as never], [null as never]])(
    '%o is refused',
    (bad) => expect(() => check(bad)).toThrow(TypeError),
  );

  test('more than the kernel takes', () => {
    expect(() => check(...Array.from({ length: 341 }, (_, index) => range(index * 2, index * 2, 1)))).toThrow(TypeError);
    expect(check(...Array.from({ length: 340 }, (_, index) => range(index * 2, index * 2, 1)))).toBeTypeOf('object');
  });

  test('text, back and forth', () => {
    const ranges = [range(0, 1000, 1), range(1, 100_000, 65_535)];
    expect(mapText(ranges)).toBe('0 1000 1\n1 100000 65535\n');
    expect(parseIdMap('         0       1000          1\n         1     100000      65535\n')).toEqual(ranges);
    expect(sameMap({ uids: ranges, gids: ranges }, { uids: [...ranges], gids: [...ranges] })).toBe(true);
    expect(sameMap({ uids: ranges, gids: ranges }, { uids: ranges, gids: [range(0, 1000, 1)] })).toBe(false);
  });

  test('inside to outside', () => {
    const ranges = [range(0, 1000, 1), range(10, 5000, 10)];
    expect([0, 1, 9, 10, 19, 20].map((id) => outside(ranges, id))).toEqual([1000, undefined, undefined, 5000, 5009, undefined]);
  });
});

describe('sysctls', () => {
  const all = Object.fromEntries(namespaceTypes.map((type) => [type, 'new'])) as Record<(typeof namespaceTypes)[number], 'new'>;
  const names = [
    'net.ipv4.ip_forward',
    'net.ipv6.conf.all.disable_ipv6',
    'net.core.somaxconn',
    'kernel.shmmax',
    'kernel.msgmax',
    'kernel.sem',
    'fs.mqueue.msg_max',
  ];
  test.each(names)("%s is a namespace's", (name) => expect(checkSysctl({ [name]: '1' }, all)).toEqual([[name.replaceAll('.', '/'), '1']]));
  test.each([
    'kernel.core_pattern',
    'kernel.modprobe',
    'kernel.sysrq',
    'kernel.hostname',
    'kernel.shm',
    'kernel.shmmaxx',
    'xkernel.shmmax',
    'vm.overcommit_memory',
    'fs.file-max',
    'fs.mqueue.x',
    'user.max_user_namespaces',
    'net',
    'net.',
    'net..x',
    'net/ipv4',
    'net.ipv4/../../kernel/core_pattern',
    'net.ipv4.conf.a b',
    '',
    'net.\n',
  ])('%s is not', (name) => expect(() => checkSysctl({ [name]: '1' }, all)).toThrow(TypeError));
  test('a namespace that is not new', () => {
    expect(() => checkSysctl({ 'net.core.somaxconn': '1' }, { ...all, net: 'host' })).toThrow("nothing when namespaces.net is not 'new'");
  });
});

describe('capabilities', () => {
  test("are the kernel's, by number", () => {
    const last = Number(readFileSync('/proc/sys/kernel/cap_last_cap', 'utf8'));
    expect(capabilityNames.length - 1).toBeGreaterThanOrEqual(last);
    expect([capabilityNames[0], capabilityNames[21], capabilityNames[31], capabilityNames[40]]).toEqual([
      'CHOWN',
      'SYS_ADMIN',
      'SETFCAP',
      'CHECKPOINT_RESTORE',
    ]);
    expect(new Set(capabilityNames).size).toBe(capabilityNames.length);
  });
  test('names to a mask, and back', () => {
    expect(capabilityMask(['CAP_CHOWN', 'CAP_SYS_ADMIN', 'CAP_CHECKPOINT_RESTORE'], 'x')).toBe((1n << 40n) | (1n << 21n) | 1n);
    expect(capabilitiesOf((1n << 40n) | (1n << 21n) | 1n)).toEqual(['CAP_CHOWN', 'CAP_SYS_ADMIN', 'CAP_CHECKPOINT_RESTORE']);
    expect(() => capabilityMask(['CAP_sys_admin'], 'capabilities')).toThrow("option 'capabilities' takes names as in capabilities(7)");
  });
});

describe('steps', () => {
  test('are the same in three places', () => {
    const text = readFileSync(`${repository}csrc/child/steps.def`, 'utf8');
    const listed = [...text.matchAll(/^(?:CALL\((\w+), \w+, "(\w*)"\)|SPECIAL\((\w+), "(\w*)"\))/gm)].map(
      ([, call, callSignature, special, specialSignature]) => [call ?? special, callSignature ?? specialSignature],
    );
    expect(listed).toEqual(Object.entries(stepKinds));
    expect(Object.entries(native().stepKinds())).toEqual(Object.entries(stepKinds));
  });

  test('tolerate four errnos, which the encoding has room for', () => {
    const text = readFileSync(`${repository}csrc/child/plan.h`, 'utf8');
    expect(text).toMatch(/int16_t tolerate\[4\]/);
  });
});

describe('plans', () => {
  const run = async (plan: PlanBuilder): Promise<string> =>
    runPlan(plan).then(
      () => 'ran',
      (error: Error) => error.message,
    );

  test('the native check takes what the builder makes', async () => {
    const plan = new PlanBuilder().in('parent').label('look');
    const fd = plan.open('directory', 'openat', [{ slot: -100, name: 'AT_FDCWD' }, '/', 0o10000000 | 0o2000000, 0]);
    plan.add('close', [fd]);
    expect(await run(plan)).toBe('ran');
  });

  test('strings of any kind come through', async () => {
    for (const path of ['/no/such/ä', `/no/${'x'.repeat(200)}`, '/no/\u{1f600}', '/no/" \\n\n']) {
      const plan = new PlanBuilder().in('parent').label('look', path);
      plan.add('openat', [{ slot: -100, name: 'AT_FDCWD' }, path, 0, 0]);
      expect(await run(plan)).toMatch(/^ENOENT: look /);
    }
  });

  test('a tolerated errno is none, and passes over what it is told to', async () => {
    const plan = new PlanBuilder().in('parent').label('look');
    const missing = plan.add('openat', [{ slot: -100, name: 'AT_FDCWD' }, '/no/such', 0, 0], { tolerate: [2] });
    plan.unless(missing, 'tolerated', () => {
      plan.add('openat', [{ slot: -100, name: 'AT_FDCWD' }, '/no/such/either', 0, 0]);
    });
    expect(await run(plan)).toBe('ran');
  });

  test('a plan that is cut, or bent, is refused by the native check', async () => {
    const plan = new PlanBuilder().in('parent').label('look');
    plan.add('openat', [{ slot: -100, name: 'AT_FDCWD' }, '/', 0o2000000, 0], { out: plan.slot('x') });
    const good = Uint8Array.from(plan.encode());
    await expect(native().runPlan(good, plan.slots())).resolves.toBeDefined();
    const refused: string[] = [];
    const attempt = async (name: string, bytes: Uint8Array): Promise<void> => {
      try {
        await native().runPlan(bytes, plan.slots());
        refused.push(`${name}: ran`);
      } catch (error) {
        if (!(error instanceof Error)) throw new Error(`${name} came as far as the kernel`);
      }
    };
    const bent = (offset: number, value: number): Uint8Array => {
      const bytes = Uint8Array.from(good);
      new DataView(bytes.buffer).setUint32(offset, value, true);
      return bytes;
    };
    await attempt('empty', new Uint8Array(0));
    for (const length of [1, 8, 100, good.length - 1]) await attempt(`cut at ${length}`, good.slice(0, length));
    await attempt('magic', bent(0, 0));
    await attempt('length', bent(4, good.length + 8));
    await attempt('steps', bent(8, 0xffff));
    await attempt("parent's end", bent(12, 7));
    await attempt('slots', bent(20, 100_000));
    await attempt('last byte', Uint8Array.from([...good.slice(0, -1), 65]));
    expect(refused).toEqual([]);
  });

  test('more slots than a plan has room for', () => {
    const plan = new PlanBuilder();
    expect(() => {
      for (let index = 0; index < 1700; index++) plan.slot(`slot ${index}`);
    }).toThrow('a plan has at most 1600 descriptors');
  });

  test('is encoded the same each time, and larger than the buffer is no harm', () => {
    const build = (): PlanBuilder => {
      const plan = new PlanBuilder().in('parent').label('write');
      const fd = plan.slot('file');
      plan.add('write', [fd, Buffer.alloc(300_000, 'x')]);
      for (let index = 0; index < 50; index++) plan.add('openat', [{ slot: -100, name: 'AT_FDCWD' }, `/path/${index}`, index, 0o644]);
      return plan;
    };
    const first = Uint8Array.from(build().encode());
    expect(Buffer.compare(first, Buffer.from(build().encode()))).toBe(0);
    expect(first.length).toBeGreaterThan(300_000);
  });
});

describe('structures', () => {
  const words = (bytes: Uint8Array): bigint[] => [...new BigUint64Array(Uint8Array.from(bytes).buffer)];
  test('as the kernel reads them', () => {
    expect(words(structs.mountAttr({ set: 0x100000, propagation: 1 << 18, userns: 7 }))).toEqual([0x100000n, 0n, BigInt(1 << 18), 7n]);
    expect(words(structs.mountAttr({ set: 1 }))).toEqual([1n, 0n, 0n, 0n]);
    expect(words(structs.openHow(0o12000000, 0x12))).toEqual([0o12000000n, 0n, 0x12n]);
    expect(words(structs.resourceLimit(5, Infinity))).toEqual([5n, 0xffffffffffffffffn]);
    expect([...new Uint32Array(structs.capabilityData(1n << 40n, (1n << 40n) | 1n, 2n).buffer)]).toEqual([0, 1, 2, 256, 256, 0]);
    expect(Buffer.from(structs.interfaceFlags('lo', 1)).toString('latin1', 0, 3)).toBe('lo\0');
  });
  test('no two share what only one has asked for', () => {
    const seen = new Map<string, string>();
    for (const set of [0, 1, 2, 4, 0x100000])
      for (const propagation of [0, 1 << 18, 1 << 19])
        for (const userns of [0, 3, 4, 700]) {
          const text = words(structs.mountAttr({ set, propagation, userns })).join();
          expect(text).toBe([set, 0, propagation, userns].join());
          seen.set(text, text);
        }
    expect(seen.size).toBe(60);
  });
});
