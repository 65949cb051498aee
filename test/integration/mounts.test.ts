import { chownSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Mount, OverlayRootfs, runIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { testNeeding } from '../helpers/lane.js';
import { ask, askHost } from '../helpers/probe.js';
import { refusal, saying } from './refusals.js';
import { smallRoot, temporary } from './trees.js';

const isRoot = process.geteuid?.() === 0;
const run = (...mounts: Mount[]) => runIsolated('true', { mounts });

describe('bind', () => {
  test("a directory: what is written inside is the host's", async () => {
    const source = temporary({ 'file.txt': 'host' });
    const [read, made, changed] = await ask(
      [
        ['read', '/mnt/data/file.txt'],
        ['create', '/mnt/data/new.txt', 'inside'],
        ['append', '/mnt/data/file.txt', '+'],
      ],
      {
        mounts: [{ type: 'bind', source, target: '/mnt/data' }],
      },
    );
    expect([read.text, made.errno, changed.errno]).toEqual(['host', null, null]);
    expect(readFileSync(join(source, 'new.txt'), 'utf8')).toBe('inside');
    expect(readFileSync(join(source, 'file.txt'), 'utf8')).toBe('host+');
    // Who makes a file inside is, on the disk, who owns such files inside.
    expect(statSync(join(source, 'new.txt')).uid).toBe(process.geteuid?.());
  });

  test('a directory, read-only', async () => {
    const source = temporary({ 'file.txt': 'host', 'below/': '' });
    const answers = await ask(
      [
        ['read', '/data/file.txt'],
        ['create', '/data/new.txt'],
        ['append', '/data/file.txt', '+'],
        ['unlink', '/data/file.txt'],
        ['create', '/data/below/new.txt'],
      ],
      {
        mounts: [{ type: 'bind', source, target: '/data', readonly: true }],
      },
    );
    expect(answers.map(({ errno }) => errno)).toEqual([null, 'EROFS', 'EROFS', 'EROFS', 'EROFS']);
    expect(readdirSync(source).sort()).toEqual(['below', 'file.txt']);
  });

  test('a file, over a file and where there was none', async () => {
    const source = join(temporary({ 'file.txt': 'host' }), 'file.txt');
    const [over, fresh, changed] = await ask(
      [
        ['read', '/etc/passwd'],
        ['read', '/etc/deep/er/file.txt'],
        ['append', '/etc/deep/er/file.txt', '+'],
      ],
      {
        mounts: [
          { type: 'bind', source, target: '/etc/passwd', readonly: true },
          { type: 'bind', source, target: '/etc/deep/er/file.txt' },
        ],
      },
    );
    expect([over.text, fresh.text, changed.errno]).toEqual(['host', 'host', null]);
    expect(readFileSync(source, 'utf8')).toBe('host+');
  });

  test('takes what is mounted below with it, or not', async () => {
    const [{ mounts }] = await askHost([['mounts']]);
    expect(mounts.some(({ mountPoint }) => mountPoint === '/dev/shm')).toBe(true);
    const type = async (recursive: boolean | undefined): Promise<unknown> => {
      const [answer] = await ask([['mounts']], {
        mounts: [{ type: 'bind', source: '/dev', target: '/host-dev', readonly: true, ...(recursive === undefined ? {} : { recursive }) }],
      });
      return answer.mounts
        .filter(({ mountPoint }) => mountPoint.startsWith('/host-dev'))
        .map(({ mountPoint, options }) => [mountPoint, options.includes('ro')]);
    };
    const all = (await type(undefined)) as [string, boolean][];
    expect(all.map(([path]) => path)).toEqual(expect.arrayContaining(['/host-dev', '/host-dev/shm', '/host-dev/pts']));
    // Read-only all the way down.
    expect(all.filter(([, readonly]) => !readonly)).toEqual([]);
    if (isRoot) expect(await type(false)).toEqual([['/host-dev', true]]);
    // What a user namespace has copied from another is locked: not without what is below it (has_locked_children).
    else await expect(type(false)).rejects.toMatchObject({ syscall: 'open_tree', errnoName: 'EINVAL' });
  });

  test('never lets devices or set-user-ID in', async () => {
    const source = temporary();
    const [fs] = await ask([['statfs', '/data']], { mounts: [{ type: 'bind', source, target: '/data' }] });
    expect(fs).toMatchObject({ nosuid: true, nodev: true, noexec: false });
  });

  test('a source that is a symlink is what it leads to', async () => {
    const directory = temporary({ 'real/file.txt': 'real', link: '-> real' });
    const [read] = await ask([['read', '/data/file.txt']], { mounts: [{ type: 'bind', source: join(directory, 'link'), target: '/data' }] });
    expect(read.text).toBe('real');
  });

  test('no such source', async () => {
    const directory = temporary();
    expect(await saying(run({ type: 'bind', source: join(directory, 'absent'), target: '/data' }), directory)).toMatchInlineSnapshot(
      `"ENOENT: bind DIR/absent (open): DIR/absent does not exist on this host"`,
    );
  });

  test('a file over a directory, and a directory over a file', async () => {
    const directory = temporary({ file: '' });
    const error = await refusal(run({ type: 'bind', source: join(directory, 'file'), target: '/usr' }));
    expect([error.code, error.message.replaceAll(directory, 'DIR')]).toMatchInlineSnapshot(`
      [
        "ERR_CLOISTER_MOUNT",
        "EINVAL: mount bind /usr (move_mount): /usr is a directory in the root
        A file can only be mounted over a file, and a directory over a directory.",
      ]
    `);
    expect(await saying(run({ type: 'bind', source: directory, target: '/etc/passwd' }), directory)).toMatchInlineSnapshot(`
      "ENOTDIR: mount bind /etc/passwd (openat2): /etc/passwd is a file in the root, or lies below one
        A file can only be mounted over a file, and a directory over a directory."
    `);
  });

  test('a target below a file', async () => {
    expect(await saying(run({ type: 'tmpfs', target: '/etc/passwd/below' }))).toMatchInlineSnapshot(`
      "ENOTDIR: mount tmpfs /etc/passwd/below (openat2): /etc/passwd/below is a file in the root, or lies below one
        A file can only be mounted over a file, and a directory over a directory."
    `);
  });

  testNeeding(['root'])('owners are those inside, if the ids are mapped', async () => {
    const source = temporary({ 'of-root': '', 'of-1000': '' });
    chownSync(join(source, 'of-1000'), 1000, 1001);
    const mounts = [{ type: 'bind', source, target: '/data' }] as const;
    const [root, user] = await ask(
      [
        ['stat', '/data/of-root'],
        ['stat', '/data/of-1000'],
      ],
      { mounts },
    );
    expect([root, user]).toMatchObject([
      { uid: 0, gid: 0 },
      { uid: 1000, gid: 1001 },
    ]);
    const [made] = await ask([['create', '/data/made']], { mounts, user: { uid: 1000, gid: 1001 } });
    expect(made.errno).toBe('EACCES');
    chownSync(source, 1000, 1001);
    const [again] = await ask([['create', '/data/made']], { mounts, user: { uid: 1000, gid: 1001 } });
    expect(again.errno).toBeNull();
    expect(statSync(join(source, 'made'))).toMatchObject({ uid: 1000, gid: 1001 });
  });

  testNeeding(['root'])('with an id map of its own', async () => {
    const source = temporary({ file: '' });
    chownSync(source, 5000, 6000);
    chownSync(join(source, 'file'), 5000, 6000);
    // Inside's root is 5000:6000 of this tree.
    const idMap = { uids: [{ inside: 0, outside: 5000, count: 10 }], gids: [{ inside: 0, outside: 6000, count: 10 }] };
    const mounts = [{ type: 'bind', source, target: '/data', idMap }] as const;
    const [seen, made] = await ask(
      [
        ['stat', '/data/file'],
        ['create', '/data/made'],
      ],
      { mounts },
    );
    expect(seen).toMatchObject({ uid: 0, gid: 0 });
    expect(made.errno).toBeNull();
    expect(statSync(join(source, 'made'))).toMatchObject({ uid: 5000, gid: 6000 });
  });

  testNeeding(['root'])('an id map for ids that the sandbox does not have', async () => {
    const ranges = [{ inside: 65_530, outside: 5000, count: 10 }];
    expect(await saying(run({ type: 'bind', source: '/usr', target: '/data', idMap: { uids: ranges, gids: ranges } }))).toMatchInlineSnapshot(`
      "map the owners of the bind /usr: ids 65530 to 65539 are not mapped in the sandbox, so no file can be theirs
        \`inside\` are ids of the sandbox, \`outside\` those on the disk."
    `);
  });

  testNeeding(['unprivileged'])('an id map of its own needs privileges', async () => {
    const idMap = { uids: [{ inside: 0, outside: 5000, count: 10 }], gids: [{ inside: 0, outside: 6000, count: 10 }] };
    expect(await saying(run({ type: 'bind', source: '/usr', target: '/data', idMap }))).toMatchInlineSnapshot(`
      "map the owners of the bind /usr: only root can map the owners of a mount
        Leave its idMap out: the files then belong to whom they belong to, or to nobody inside."
    `);
  });
});

describe('new file systems', () => {
  test('tmpfs, with a size and a mode', async () => {
    const [fs, full, mode, made] = await ask(
      [
        ['statfs', '/work'],
        ['fill', '/work/full', '4M'],
        ['stat', '/work'],
        ['statfs', '/tmp'],
      ],
      {
        mounts: [
          { type: 'tmpfs', target: '/work', size: '1M', mode: 0o1777 },
          { type: 'tmpfs', target: '/tmp', size: 65536 },
        ],
      },
    );
    expect(fs).toMatchObject({ type: '0x1021994', sizeBytes: 2 ** 20, nosuid: true, nodev: true, noexec: false });
    expect([full.errno, mode.mode, made.sizeBytes]).toEqual(['ENOSPC', '1777', 65536]);
  });

  test('tmpfs, by default: of root alone to write to', async () => {
    const [status, made] = await ask(
      [
        ['stat', '/work'],
        ['create', '/work/file'],
      ],
      { mounts: [{ type: 'tmpfs', target: '/work' }] },
    );
    expect(status).toMatchObject({ mode: '0755', uid: 0, gid: 0 });
    expect(made.errno).toBeNull();
  });

  test('proc is of the own pid namespace', async () => {
    const [own, fs] = await ask(
      [
        ['read', '/other/proc/1/comm'],
        ['statfs', '/other/proc'],
      ],
      { mounts: [{ type: 'proc', target: '/other/proc' }] },
    );
    expect(own.text).toBe('probe\n');
    expect(fs).toMatchObject({ type: '0x9fa0', nosuid: true, nodev: true, noexec: true });
  });

  test('sysfs is read-only, and of the own network namespace', async () => {
    const [net, fs] = await ask(
      [
        ['ls', '/other/sys/class/net'],
        ['statfs', '/other/sys'],
      ],
      { mounts: [{ type: 'sysfs', target: '/other/sys' }] },
    );
    expect(net.entries).toEqual(['lo']);
    expect(fs).toMatchObject({ readonly: true, nosuid: true, nodev: true, noexec: true });
  });

  test('devpts is a new one', async () => {
    const [entries, ptmx] = await ask(
      [
        ['ls', '/other/pts'],
        ['open', '/other/pts/ptmx', 'rw'],
      ],
      { mounts: [{ type: 'devpts', target: '/other/pts' }] },
    );
    expect([entries.entries, ptmx.errno]).toEqual([['ptmx'], null]);
  });

  test('mqueue', async () => {
    const [fs, made, seen] = await ask(
      [
        ['statfs', '/queues'],
        ['create', '/queues/one'],
        ['ls', '/dev/mqueue'],
      ],
      { mounts: [{ type: 'mqueue', target: '/queues' }] },
    );
    expect(fs.type).toBe('0x19800202');
    // One of the ipc namespace, wherever it is mounted.
    expect([made.errno, seen.entries]).toEqual([null, ['one']]);
  });

  test('cgroup: version 2, with nothing of the host above', async () => {
    const [fs, entries] = await ask(
      [
        ['statfs', '/groups'],
        ['ls', '/groups'],
      ],
      { mounts: [{ type: 'cgroup', target: '/groups' }] },
    );
    expect(fs.type).toBe('0x63677270');
    expect(entries.entries).toContain('cgroup.procs');
  });
});

describe('overlay', () => {
  test("of layers, with an upper and a work directory of the caller's", async () => {
    const directory = temporary({ 'base/a': 'base', 'base/b': 'base', 'top/b': 'top', 'upper/': '', 'work/': '' });
    const at = (name: string): string => join(directory, name);
    const mounts = [{ type: 'overlay', target: '/work', layers: [at('base'), at('top')], upper: at('upper'), work: at('work') }] as const;
    const answers = await ask(
      [
        ['read', '/work/a'],
        ['read', '/work/b'],
        ['create', '/work/c', 'new'],
      ],
      { mounts, idMap: 'self' },
    );
    expect(answers).toMatchObject([{ text: 'base' }, { text: 'top' }, { errno: null }]);
    expect(readFileSync(at('upper/c'), 'utf8')).toBe('new');
    expect(readdirSync(at('base')).sort()).toEqual(['a', 'b']);
  });

  test('of layers alone is read-only', async () => {
    const directory = temporary({ 'base/a': 'base', 'top/b': 'top' });
    const mounts = [{ type: 'overlay', target: '/work', layers: [join(directory, 'base'), join(directory, 'top')] }] as const;
    const [a, b, c] = await ask(
      [
        ['read', '/work/a'],
        ['read', '/work/b'],
        ['create', '/work/c'],
      ],
      { mounts },
    );
    expect([a.text, b.text, c.errno]).toEqual(['base', 'top', 'EROFS']);
  });

  test('of an OverlayRootfs, which others see', async () => {
    const layer = temporary({ 'a.txt': 'layer' });
    await using work = await OverlayRootfs.create({ layers: [layer] });
    const mounts = [{ type: 'overlay', target: '/work', source: work }] as const;
    const [read, made] = await ask(
      [
        ['read', '/work/a.txt'],
        ['create', '/work/b.txt', 'mine'],
      ],
      { mounts },
    );
    expect([read.text, made.errno]).toEqual(['layer', null]);
    const [seen] = await ask([['read', '/work/b.txt']], { mounts });
    expect(seen.text).toBe('mine');
    expect(readdirSync(layer)).toEqual(['a.txt']);
  });

  test('of an OverlayRootfs, in a root that is one', async () => {
    await using root = await OverlayRootfs.create({ layers: [smallRoot()] });
    await using work = await OverlayRootfs.create({ layers: [temporary({ 'a.txt': 'layer' })] });
    const [read] = await ask([['read', '/work/a.txt']], { rootfs: root, mounts: [{ type: 'overlay', target: '/work', source: work }] });
    expect(read.text).toBe('layer');
  });

  test('of layers that are not there', async () => {
    const directory = temporary();
    expect(await saying(run({ type: 'overlay', target: '/work', layers: [join(directory, 'absent')] }), directory)).toMatchInlineSnapshot(
      `"ENOENT: layer of a mount DIR/absent (open): DIR/absent does not exist on this host"`,
    );
  });
});

describe('file', () => {
  test('text and bytes, with a mode', async () => {
    const answers = await ask(
      [
        ['read', '/etc/app.conf'],
        ['stat', '/etc/app.conf'],
        ['stat', '/run/key'],
        ['stat', '/etc/empty'],
        ['read', '/etc/hosts'],
      ],
      {
        mounts: [
          { type: 'file', target: '/etc/app.conf', contents: 'debug = 1\nname = "ä"\n' },
          { type: 'file', target: '/run/key', contents: Buffer.from([0, 1, 2, 0xff]), mode: 0o400 },
          { type: 'file', target: '/etc/empty', contents: '' },
          { type: 'file', target: '/etc/hosts', contents: '127.0.0.1 me\n' },
        ],
      },
    );
    expect(answers).toMatchObject([
      { text: 'debug = 1\nname = "ä"\n' },
      { mode: '0644', uid: 0, gid: 0, type: 'file' },
      { mode: '0400', size: 4 },
      { size: 0 },
      { text: '127.0.0.1 me\n' },
    ]);
  });

  test('of a megabyte', async () => {
    const contents = Buffer.alloc(2 ** 20, 'x');
    const [status] = await ask([['stat', '/big']], { mounts: [{ type: 'file', target: '/big', contents }] });
    expect(status.size).toBe(2 ** 20);
  });

  test('the mode is what was said, whatever the umask', async () => {
    const [status] = await ask([['stat', '/script']], { umask: 0o077, mounts: [{ type: 'file', target: '/script', contents: '#!/bin/sh\n', mode: 0o777 }] });
    expect(status.mode).toBe('0777');
  });

  test('can be executed', async () => {
    const { stdout } = await runIsolated('/script', { mounts: [{ type: 'file', target: '/script', contents: '#!/bin/sh\necho ran\n', mode: 0o755 }] });
    expect(stdout).toBe('ran\n');
  });
});

describe('together', () => {
  test('in their order: a later one may lie in an earlier one', async () => {
    const source = temporary({ 'deep/file.txt': 'host' });
    const [top, file, tmp] = await ask(
      [
        ['ls', '/work'],
        ['read', '/work/data/deep/file.txt'],
        ['ls', '/work/data/deep/tmp'],
      ],
      {
        mounts: [
          { type: 'tmpfs', target: '/work' },
          { type: 'bind', source, target: '/work/data', readonly: false },
          { type: 'tmpfs', target: '/work/data/deep/tmp' },
        ],
      },
    );
    expect([top.entries, file.text, tmp.entries]).toEqual([['data'], 'host', []]);
    // The mount point was made in what is mounted there, as with mount(8).
    expect(readdirSync(join(source, 'deep'))).toEqual(['file.txt', 'tmp']);
  });

  test('a missing target in a read-only bind', async () => {
    const source = temporary();
    expect(
      await saying(run({ type: 'bind', source, target: '/data', readonly: true }, { type: 'tmpfs', target: '/data/absent' }), source),
    ).toMatchInlineSnapshot(`
      "EROFS: mount tmpfs /data/absent (mkdirat): /data/absent does not exist in the root, which is read-only
        Make it in the layers, or let the root be writable."
    `);
    expect(readdirSync(source)).toEqual([]);
  });

  test('twenty of each', async () => {
    const mounts = Array.from({ length: 20 }, (_, index): Mount[] => [
      { type: 'bind', source: '/usr', target: `/many/bind${index}`, readonly: true, recursive: true },
      { type: 'tmpfs', target: `/many/tmp${index}` },
      { type: 'file', target: `/many/file${index}`, contents: String(index) },
    ]).flat();
    const [entries, last] = await ask(
      [
        ['ls', '/many'],
        ['read', '/many/file19'],
      ],
      { mounts },
    );
    expect([entries.entries?.length, last.text]).toEqual([60, '19']);
  });

  test('none of it is seen outside', async () => {
    const before = readFileSync('/proc/self/mountinfo', 'utf8').split('\n').length;
    const target = temporary();
    await ask([['ls', '/']], {
      mounts: [
        { type: 'tmpfs', target },
        { type: 'file', target: `${target}/file`, contents: '' },
      ],
    });
    expect(readFileSync('/proc/self/mountinfo', 'utf8').split('\n').length).toBe(before);
    expect(readdirSync(target)).toEqual([]);
  });
});

test("masked and read-only paths of one's own", async () => {
  const source = temporary({ 'dir/file.txt': 'host', 'secret.txt': 'host', 'data/file.txt': 'host' });
  const answers = await ask(
    [
      ['ls', '/data/dir'],
      ['read', '/data/secret.txt'],
      ['create', '/data/data/new'],
      ['create', '/data/new'],
      ['create', '/data/dir/new'],
    ],
    {
      mounts: [{ type: 'bind', source, target: '/data' }],
      maskedPaths: ['/data/dir', '/data/secret.txt', '/data/absent', '/data/secret.txt/below'],
      readonlyPaths: ['/data/data', '/absent'],
    },
  );
  expect(answers).toMatchObject([{ entries: [] }, { text: '' }, { errno: 'EROFS' }, { errno: null }, { errno: 'EROFS' }]);
});
