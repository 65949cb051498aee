import { chownSync, existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { IsolationError, LayerStore, OverlayRootfs, runIsolated, type SpawnOptions, spawnIsolated } from 'cloister';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { census, leaks, settled } from '../helpers/census.js';
import { testNeeding } from '../helpers/lane.js';
import { Lines } from '../helpers/lines.js';
import { type AnswersTo, ask, askHost, type Question, toArguments } from '../helpers/probe.js';
import { parseAnswers } from '../helpers/questions.js';
import { archive, file } from '../helpers/raw-tar.js';
import { plainly, refusal } from './refusals.js';
import { plant, smallRoot, temporary } from './trees.js';

const isRoot = process.geteuid?.() === 0;

/** Without the fixtures' mount: what is there is what the root has. */
async function askIn<const Q extends readonly Question[]>(questions: Q, options: SpawnOptions): Promise<AnswersTo<Q>> {
  const { stdout, stderr, exitCode } = await runIsolated('/bin/probe', toArguments(questions), options);
  return parseAnswers(questions, stdout, `exit code ${exitCode}: ${stderr}`);
}

describe('a directory as root', () => {
  test('is all that there is, with /dev, /proc and /sys', async () => {
    const rootfs = smallRoot({ 'hello.txt': 'hello' });
    const [top, hello, etc] = await askIn(
      [
        ['ls', '/'],
        ['read', '/hello.txt'],
        ['ls', '/etc'],
      ],
      { rootfs },
    );
    expect(top.entries).toEqual(['bin', 'dev', 'etc', 'hello.txt', 'proc', 'sys']);
    expect([hello.text, etc.entries]).toEqual(['hello', ['passwd']]);
  });

  test('is written to', async () => {
    const rootfs = smallRoot();
    const [{ errno }] = await askIn([['create', '/made', 'inside']], { rootfs });
    if (isRoot) {
      // A directory of host root's belongs to root inside.
      expect(errno).toBeNull();
      expect(statSync(join(rootfs, 'made')).uid).toBe(0);
    }
    expect(readFileSync(join(rootfs, 'made'), 'utf8')).toBe('inside');
  });

  test('read-only: nothing can be written, and not even mount points are made in it', async () => {
    const rootfs = smallRoot();
    const before = readdirSync(rootfs);
    const mounts = [{ type: 'tmpfs', target: '/work/deep' }] as const;
    const [file, deep, shm] = await askIn(
      [
        ['create', '/made'],
        ['create', '/work/deep/made'],
        ['create', '/dev/shm/made'],
      ],
      { rootfs, readonly: true, mounts },
    );
    expect([file.errno, deep.errno, shm.errno]).toEqual(['EROFS', null, null]);
    expect(readdirSync(rootfs)).toEqual(before);
  });

  test('its owners are those of the host', async () => {
    const rootfs = smallRoot({ 'own.txt': '' });
    const [own] = await askIn([['stat', '/own.txt']], { rootfs });
    expect(own).toMatchObject({ uid: 0, gid: 0 });
  });

  test('that is not there, or no directory', async () => {
    const rootfs = temporary({ file: '' });
    const absent = await refusal(runIsolated('/bin/probe', [], { rootfs: join(rootfs, 'absent') }));
    expect([absent.code, plainly(absent.message, rootfs)]).toMatchInlineSnapshot(`
      [
        "ERR_CLOISTER_ROOTFS",
        "ENOENT: use a directory as root DIR/absent (open): DIR/absent does not exist on this host",
      ]
    `);
    const file = await refusal(runIsolated('/bin/probe', [], { rootfs: join(rootfs, 'file') }));
    expect([file.code, plainly(file.message, rootfs)]).toMatchInlineSnapshot(`
      [
        "ERR_CLOISTER_ROOTFS",
        "EINVAL: mount the root / (move_mount): what is to be the root is not a directory",
      ]
    `);
  });
});

describe('layers', () => {
  test('are stacked base first, and shadow each other', async () => {
    const base = smallRoot({ a: 'base', b: 'base', 'dir/x': 'base' });
    const middle = temporary({ b: 'middle', c: 'middle', 'dir/y': 'middle' });
    const top = temporary({ c: 'top', 'dir/z': 'top' });
    await using rootfs = await OverlayRootfs.create({ layers: [base, middle, top] });
    const [a, b, c, dir] = await askIn(
      [
        ['read', '/a'],
        ['read', '/b'],
        ['read', '/c'],
        ['ls', '/dir'],
      ],
      { rootfs },
    );
    expect([a.text, b.text, c.text, dir.entries]).toEqual(['base', 'middle', 'top', ['x', 'y', 'z']]);
  });

  test('a whiteout in a layer takes a file of a lower one away', async () => {
    const base = smallRoot({ gone: 'base', 'kept.txt': 'base' });
    const top = temporary();
    // Everybody may make this one device: character 0:0.
    const [made] = await askHost([['mknod', join(top, 'gone'), 'c', 0, 0]]);
    expect(made.errno).toBeNull();
    await using rootfs = await OverlayRootfs.create({ layers: [base, top] });
    const [gone, kept, entries] = await askIn(
      [
        ['lstat', '/gone'],
        ['read', '/kept.txt'],
        ['ls', '/'],
      ],
      { rootfs },
    );
    expect([gone.errno, kept.text]).toEqual(['ENOENT', 'base']);
    expect(entries.entries).not.toContain('gone');
  });

  test('are never written to', async () => {
    const base = smallRoot({ 'a.txt': 'base', 'dir/b.txt': 'base' });
    await using rootfs = await OverlayRootfs.create({ layers: [base] });
    const answers = await askIn(
      [
        ['append', '/a.txt', '+'],
        ['unlink', '/dir/b.txt'],
        ['create', '/new.txt'],
        ['rename', '/dir', '/moved'],
        ['read', '/a.txt'],
        ['ls', '/moved'],
      ],
      { rootfs },
    );
    expect(answers.slice(0, 3).map(({ errno }) => errno)).toEqual([null, null, null]);
    // An ordinary user's overlays can't remember that a directory was moved: trusted xattrs are out of its reach.
    expect(answers[3].errno).toBe(isRoot ? null : 'EXDEV');
    expect(answers[4].text).toBe('base+');
    expect(readdirSync(base).sort()).toEqual(['a.txt', 'bin', 'dir', 'etc']);
    expect(readFileSync(join(base, 'a.txt'), 'utf8')).toBe('base');
    expect(readdirSync(join(base, 'dir'))).toEqual(['b.txt']);
  });

  test('a hundred of them', async () => {
    const layers = [smallRoot(), ...Array.from({ length: 99 }, (_, index) => temporary({ [`file${index}`]: String(index) }))];
    await using rootfs = await OverlayRootfs.create({ layers });
    const [first, last] = await askIn(
      [
        ['read', '/file0'],
        ['read', '/file98'],
      ],
      { rootfs },
    );
    expect([first.text, last.text]).toEqual(['0', '98']);
  });

  test('a name that has to be escaped elsewhere', async () => {
    const above = temporary({ 'a:b,c\\d "e"/file': 'odd' });
    await using rootfs = await OverlayRootfs.create({ layers: [smallRoot(), join(above, 'a:b,c\\d "e"')] });
    const [file] = await askIn([['read', '/file']], { rootfs });
    expect(file.text).toBe('odd');
  });

  test('that are not there are refused at once', async () => {
    const above = temporary();
    const error = await refusal(OverlayRootfs.create({ layers: [join(above, 'absent')] }));
    expect([error.code, plainly(error.message, above)]).toMatchInlineSnapshot(`
      [
        "ERR_CLOISTER_ROOTFS",
        "ENOENT: use a layer DIR/absent (open): DIR/absent does not exist on this host",
      ]
    `);
  });

  testNeeding(['root', 'overlay'])('that are of a file system which cannot map owners are refused with what to do', async () => {
    const one = { uids: [{ inside: 0, outside: 100_000, count: 1 }], gids: [{ inside: 0, outside: 100_000, count: 1 }] };
    const [layer, root, bind] = await Promise.all([
      refusal(OverlayRootfs.create({ layers: ['/proc'] })),
      refusal(runIsolated('/bin/true', [], { rootfs: '/proc' })),
      refusal(runIsolated('/bin/true', [], { mounts: [{ type: 'bind', source: '/proc', target: '/x', idMap: one }] })),
    ]);
    expect([layer, root, bind].map(({ message }) => message)).toMatchInlineSnapshot(`
      [
        "EINVAL: use a layer /proc (mount_setattr): its file system cannot map owners (idmapped mounts)
        Use a copy on another one (ext4, xfs, btrfs; tmpfs since Linux 6.3), or idMap: 'self' if root inside may be root of this host by its id.",
        "EINVAL: use a directory as root /proc (mount_setattr): its file system cannot map owners (idmapped mounts)
        Use a copy on another one (ext4, xfs, btrfs; tmpfs since Linux 6.3), or idMap: 'self' if root inside may be root of this host by its id.",
        "EINVAL: bind /proc (mount_setattr): its file system cannot map owners (idmapped mounts)
        Bind it without \`idMap\`: owners that the sandbox does not have appear as nobody.",
      ]
    `);
  });

  test('one that is there twice is seen where it is uppermost', async () => {
    const [below, between] = [temporary({ a: 'below', b: 'below' }), temporary({ a: 'between' })];
    await using rootfs = await OverlayRootfs.create({ layers: [smallRoot(), below, between, below, between] });
    const [a, b] = await askIn(
      [
        ['read', '/a'],
        ['read', '/b'],
      ],
      { rootfs },
    );
    expect([a.text, b.text]).toEqual(['between', 'below']);
    expect((await rootfs.branches()).slice(1, 3).map(({ path }) => path)).toEqual([between, below]);
    const error = await refusal(OverlayRootfs.create({ layers: [below, `${below}/.`] }));
    expect(error.message).toMatch(/: two of the layers are the same directory, or one lies in another\n/);
  });

  test('a layer that is a file is refused', async () => {
    const above = temporary({ file: '' });
    const error = await refusal(OverlayRootfs.create({ layers: [join(above, 'file')] }));
    expect(error.code).toBe('ERR_CLOISTER_ROOTFS');
    expect(plainly(error.message, above)).toBe('ENOTDIR: use a layer DIR/file (open): DIR/file is not a directory');
  });
});

/** Directories of our own for upper: 'disk'. */
function uppers(): string[] {
  const [parent, prefix] = isRoot ? ['/var/lib/cloister', 'upper-'] : [tmpdir(), 'cloister-upper-'];
  return existsSync(parent) ? readdirSync(parent).filter((name) => name.startsWith(prefix)) : [];
}

describe('the writable layer', () => {
  test('is one for all spawns, at the same time too', async () => {
    await using rootfs = await OverlayRootfs.create({ layers: [smallRoot()] });
    const holder = spawnIsolated('/bin/probe', toArguments([['create', '/first', '1'], ['sleep']]), { rootfs });
    await using _ = holder;
    await new Lines(holder.stdout).until('ready');
    const [first, second] = await askIn(
      [
        ['read', '/first'],
        ['create', '/second', '2'],
      ],
      { rootfs },
    );
    expect([first.text, second.errno]).toEqual(['1', null]);
    const all = await Promise.all(
      ['a', 'b', 'c', 'd'].map((name) =>
        askIn(
          [
            ['create', `/${name}`, name],
            ['read', '/second'],
          ],
          { rootfs },
        ),
      ),
    );
    expect(all.map(([, read]) => read.text)).toEqual(['2', '2', '2', '2']);
    const [top] = await askIn([['ls', '/']], { rootfs });
    expect(top.entries).toEqual(expect.arrayContaining(['a', 'b', 'c', 'd', 'first', 'second']));
  });

  test('has the ids of one of those spawns that come first, all at once', async () => {
    // Ids that earlier roots have given back are there at once.
    await Promise.all(Array.from({ length: 4 }, () => runIsolated('true')));
    await using rootfs = await OverlayRootfs.host();
    const results = await Promise.all(Array.from({ length: 4 }, () => runIsolated('true', { rootfs })));
    expect(results.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0, 0]);
  });

  test('a spawn that comes while it is reset waits for that', async () => {
    await using rootfs = await OverlayRootfs.create({ layers: [smallRoot()], upper: 'disk' });
    await askIn([['create', '/written', 'x']], { rootfs });
    const before = census(['descriptors']);
    const reset = rootfs.reset();
    const [seen] = await askIn([['lstat', '/written']], { rootfs });
    await reset;
    expect(seen.errno).toBe('ENOENT');
    await settled(() => leaks(before, census(['descriptors'])), { what: 'the descriptors' });
  });

  test('is read without a descriptor that stays', async () => {
    await using rootfs = await OverlayRootfs.create({ layers: [smallRoot()] });
    await askIn([['create', '/written', 'x']], { rootfs });
    const read = async () => {
      for await (const _ of rootfs.changes()) break;
      for await (const _ of rootfs.diff());
      await rootfs.apply(temporary());
      await (await rootfs.fork())[Symbol.asyncDispose]();
    };
    await read();
    // At once: a thread that waits for more to do would close what it has forgotten when it ends.
    const uppers = () => census(['descriptors']).descriptors?.filter(({ key }) => key.startsWith('/upper')).length;
    const before = uppers();
    for (let turn = 0; turn < 3; turn++) await read();
    expect(uppers()).toBe(before);
  });

  test('ends with the object', async () => {
    const layer = smallRoot();
    const rootfs = await OverlayRootfs.create({ layers: [layer] });
    await askIn([['create', '/made']], { rootfs });
    await rootfs[Symbol.asyncDispose]();
    await using again = await OverlayRootfs.create({ layers: [layer] });
    const [made] = await askIn([['stat', '/made']], { rootfs: again });
    expect(made.errno).toBe('ENOENT');
  });

  test('of the default root: none is shared', async () => {
    const [made] = await ask([['create', '/etc/mine']]);
    const [seen] = await ask([['stat', '/etc/mine']]);
    expect([made.errno, seen.errno]).toEqual([null, 'ENOENT']);
  });

  test('has a size', async () => {
    await using rootfs = await OverlayRootfs.create({ layers: [smallRoot()], size: '1M' });
    const [fits, full, size] = await askIn(
      [
        ['fill', '/fits', '256K'],
        ['fill', '/full', '4M'],
        ['statfs', '/'],
      ],
      { rootfs },
    );
    expect([fits.errno, full.errno]).toEqual([null, 'ENOSPC']);
    expect(size.sizeBytes).toBe(2 ** 20);
  });

  test('as a directory: kept, and used again', async () => {
    const above = temporary({ 'upper/': '' });
    const upper = join(above, 'upper');
    const layers = [smallRoot({ 'old.txt': 'old' })];
    {
      await using rootfs = await OverlayRootfs.create({ layers, upper, idMap: 'self' });
      const answers = await askIn(
        [
          ['create', '/new.txt', 'new'],
          ['append', '/old.txt', '+'],
        ],
        { rootfs },
      );
      expect(answers.map(({ errno }) => errno)).toEqual([null, null]);
    }
    expect(readFileSync(join(upper, 'new.txt'), 'utf8')).toBe('new');
    expect(readFileSync(join(upper, 'old.txt'), 'utf8')).toBe('old+');
    await using rootfs = await OverlayRootfs.create({ layers, upper, idMap: 'self' });
    const [kept] = await askIn([['read', '/new.txt']], { rootfs });
    expect(kept.text).toBe('new');
  });

  testNeeding(['root'])('as a directory, with ids mapped: the files are owned by those ids', async () => {
    const above = temporary({ 'upper/': '' });
    const upper = join(above, 'upper');
    chownSync(upper, 700_000, 800_000);
    const idMap = { uids: [{ inside: 0, outside: 700_000, count: 1000 }], gids: [{ inside: 0, outside: 800_000, count: 1000 }] };
    await using rootfs = await OverlayRootfs.create({ layers: [smallRoot({ 'old.txt': '' })], upper, idMap });
    const [made, changed, own] = await askIn(
      [
        ['create', '/new.txt', 'new'],
        ['append', '/old.txt', '+'],
        ['stat', '/new.txt'],
      ],
      { rootfs },
    );
    expect([made.errno, changed.errno]).toEqual([null, null]);
    expect(own).toMatchObject({ uid: 0, gid: 0 });
    expect(statSync(join(upper, 'new.txt'))).toMatchObject({ uid: 700_000, gid: 800_000 });
    expect(statSync(join(upper, 'old.txt'))).toMatchObject({ uid: 700_000, gid: 800_000 });
  });

  test('as a directory, below the host: kept, and used again by the same ids', async () => {
    const upper = join(temporary({ 'upper/': '' }), 'upper');
    const others: OverlayRootfs[] = [];
    onTestFinished(() => Promise.all(others.map((other) => other[Symbol.asyncDispose]())).then(() => {}));
    for (const [verb, text] of [
      ['create', 'x'],
      ['append', 'xx'],
    ] as const) {
      await using rootfs = await OverlayRootfs.host({ upper });
      const [written, seen] = await ask(
        [
          [verb, '/etc/kept', 'x'],
          ['read', '/etc/kept'],
        ],
        { rootfs },
      );
      expect([written.errno, seen.text]).toEqual([null, text]);
      await rootfs[Symbol.asyncDispose]();
      // Who comes next has others.
      others.push(await OverlayRootfs.host());
      await runIsolated('true', { rootfs: others.at(-1) as OverlayRootfs });
    }
  });

  test('as a directory: of one root at a time', async () => {
    const above = temporary({ 'upper/': '', 'other/': '' });
    const makers = [
      () => OverlayRootfs.host({ upper: join(above, 'upper') }),
      () => OverlayRootfs.create({ layers: [smallRoot()], upper: join(above, 'other'), idMap: 'self' }),
    ];
    for (const make of makers) {
      const rootfs = await make();
      expect((await refusal(make())).code).toBe('ERR_CLOISTER_BUSY');
      await rootfs[Symbol.asyncDispose]();
      await (await make())[Symbol.asyncDispose]();
    }
  });

  test('whose options are wrong is refused by their names', async () => {
    const wrong = (options: object) => OverlayRootfs.host(options).then(String, (error: Error & { option?: string }) => `${error.name} ${error.option}`);
    expect(await Promise.all([{ upper: '/a\0b' }, { upper: null }, { size: 0 }, { size: '0K' }].map(wrong))).toEqual([
      'TypeError upper',
      'TypeError upper',
      'TypeError size',
      'TypeError size',
    ]);
  });

  test("on 'disk': deleted at the end", async () => {
    const before = uppers();
    const rootfs = await OverlayRootfs.create({ layers: [smallRoot()], upper: 'disk' });
    const [made, type] = await askIn(
      [
        ['create', '/made', 'x'],
        ['statfs', '/'],
      ],
      { rootfs },
    );
    expect(made.errno).toBeNull();
    expect(type.readonly).toBe(false);
    const [directory] = uppers().filter((name) => !before.includes(name));
    expect(directory).toBeDefined();
    await rootfs[Symbol.asyncDispose]();
    expect(uppers()).not.toContain(directory);
  });

  test("on 'disk': deleted, whatever a program has left in it", async () => {
    const before = uppers();
    const rootfs = await OverlayRootfs.create({ layers: [smallRoot()], upper: 'disk' });
    await askIn(
      [
        ['mkdir', '/locked'],
        ['create', '/locked/file'],
        ['chmod', '0', '/locked/file'],
        ['chmod', '0', '/locked'],
        ['symlink', '/etc', '/link'],
      ],
      { rootfs },
    );
    await rootfs[Symbol.asyncDispose]();
    expect(uppers()).toEqual(before);
    expect(existsSync('/etc/passwd')).toBe(true);
  });

  testNeeding(['unprivileged'])("on 'disk', where none can be made: told, and no layer is held for it", async () => {
    await using store = await LayerStore.open(join(temporary(), 'store'));
    const layer = await store.import(Readable.from([archive(file('a', 'x'))]));
    vi.stubEnv('TMPDIR', '/nowhere');
    try {
      expect((await refusal(OverlayRootfs.create({ layers: [layer], upper: 'disk' }))).message).toMatchInlineSnapshot(`
        "ENOENT: make a directory for what is written with upper: 'disk' /nowhere (mkdtemp): no such file or directory
          It is made where TMPDIR says, or else in /tmp."
      `);
    } finally {
      vi.unstubAllEnvs();
    }
    expect((await store.gc()).removed).toEqual([layer.digest]);
  });

  test('that is not there is refused', async () => {
    const above = temporary();
    const error = await refusal(OverlayRootfs.create({ layers: [smallRoot()], upper: join(above, 'absent'), idMap: 'self' }));
    expect(plainly(error.message, above)).toMatchInlineSnapshot(`"ENOENT: use the writable layer DIR/absent (open): DIR/absent does not exist on this host"`);
  });

  test('a layer as upper is refused', async () => {
    const above = temporary({ 'layer/file': '' });
    const error = await refusal(OverlayRootfs.create({ layers: [join(above, 'layer')], upper: join(above, 'layer'), idMap: 'self' }));
    expect(plainly(error.message, above)).toMatchInlineSnapshot(`
      "ELOOP: use the writable layer DIR/layer (fsconfig): the writable layer is one of the layers, or lies in one
        Use a directory of its own as upper."
    `);
  });
});

describe('the host as root', () => {
  test('its empty directories have the room of the writable layer', async () => {
    const room = ['/tmp', '/var/tmp', '/run', '/home'].map((directory) => ['fill', `${directory}/file`, '4M'] as const);
    for (const { errno } of await ask(room)) expect(errno).toBeNull();
  });

  test('hides what it is told to', async () => {
    const [{ entries = [] }] = await askHost([['ls', '/opt']]);
    await using rootfs = await OverlayRootfs.host({ hide: ['/opt', '/etc/hosts', '/usr/share'] });
    const [opt, hosts, share, usr] = await ask(
      [
        ['ls', '/opt'],
        ['lstat', '/etc/hosts'],
        ['ls', '/usr/share'],
        ['ls', '/usr'],
      ],
      { rootfs },
    );
    expect(entries.length + 1).toBeGreaterThan(0);
    // To an ordinary user before Linux 6.6 (isGone in hide-layer.ts) what lies deeper is not there at all: tmpfs cannot mark a directory as opaque.
    const emptied = isRoot || share.errno !== 'ENOENT' ? share.entries : [];
    expect([opt.entries, hosts.errno, emptied]).toEqual([[], 'ENOENT', []]);
    expect(usr.entries).toContain('bin');
    // The next root is not that one.
    const [plain] = await ask([['lstat', '/etc/hosts']]);
    expect(plain.errno).toBe((await askHost([['lstat', '/etc/hosts']]))[0].errno);
  });

  testNeeding(['root'])('hides what is named twice, in another way, or is hidden already; and what comes only later', async () => {
    // What is in /tmp is not there inside.
    const directory = mkdtempSync('/opt/cloister-test-');
    onTestFinished(() => rmSync(directory, { recursive: true }));
    plant(directory, { 'public/file': '' });
    const hide = [directory, `${directory}/../${directory.split('/').at(-1)}/`, `${directory}/public`, '/home', '/etc/../nosuch'];
    const lookFor = async (path: string, hidden: readonly string[]) => {
      await using rootfs = await OverlayRootfs.host({ hide: hidden });
      return (await ask([['lstat', path]], { rootfs }))[0].errno;
    };
    expect(await lookFor(join(directory, 'public'), hide)).toBe('ENOENT');
    const later = join(directory, 'later');
    expect(await lookFor(join(later, 'secret'), [join(later, 'secret')])).toBe('ENOENT');
    plant(directory, { 'later/secret': 's', 'later/file': 'f' });
    expect(await lookFor(join(later, 'secret'), [join(later, 'secret')])).toBe('ENOENT');
    expect(await lookFor(join(later, 'file'), [join(later, 'secret')])).toBe(null);
  });

  test('does not hide what is not there, or all of it', async () => {
    for (const path of ['/', '/.', '/proc', '/sys/firmware', '/usr/../dev']) {
      await expect(OverlayRootfs.host({ hide: ['/opt', path] })).rejects.toMatchObject({ name: 'TypeError', option: 'hide[1]' });
    }
  });

  test('holds nothing of what it has hidden once', async () => {
    const hideAnew = async (round: string) => {
      for (let turn = 0; turn < 10; turn++) await (await OverlayRootfs.host({ hide: [`/opt/${round}${turn}`] }))[Symbol.asyncDispose]();
    };
    await hideAnew('a');
    const before = census(['descriptors']);
    await hideAnew('b');
    await settled(() => leaks(before, census(['descriptors'])), { what: 'the descriptors' });
  });

  test('one for many spawns', async () => {
    await using rootfs = await OverlayRootfs.host();
    const [made] = await ask([['create', '/etc/shared', 'x']], { rootfs });
    const [seen] = await ask([['read', '/etc/shared']], { rootfs });
    expect([made.errno, seen.text]).toEqual([null, 'x']);
    expect(existsSync('/etc/shared')).toBe(false);
  });

  testNeeding(['root'])('a directory of the host can be renamed', async () => {
    const [renamed, there, gone] = await ask([
      ['rename', '/etc/apt', '/etc/moved'],
      ['stat', '/etc/moved'],
      ['stat', '/etc/apt'],
    ]);
    expect([renamed.errno, there.errno, gone.errno]).toEqual([null, null, 'ENOENT']);
    expect(existsSync('/etc/apt')).toBe(true);
  });

  test("a mount of the host's that comes and goes", async () => {
    // The default root is prepared anew when the host's mounts have changed: here they have not, and nothing is left.
    const before = census(['descriptors']);
    for (let turn = 0; turn < 3; turn++) await ask([['ls', '/']]);
    await settled(() => leaks(before, census(['descriptors'])), { what: 'the descriptors' });
  });
});

test('nothing is applied to what is no directory, whether there is something or not', async () => {
  await using rootfs = await OverlayRootfs.host();
  const target = join(temporary({ file: '' }), 'file');
  expect((await refusal(rootfs.apply(target))).message).toMatch(/^ENOTDIR: apply changes to /);
  await ask([['create', '/etc/written', 'x']], { rootfs });
  expect((await refusal(rootfs.apply(target))).message).toMatch(/^ENOTDIR: apply changes to /);
});

describe('the end of a root', () => {
  test('twice is once', async () => {
    const rootfs = await OverlayRootfs.create({ layers: [smallRoot()] });
    await Promise.all([rootfs[Symbol.asyncDispose](), rootfs[Symbol.asyncDispose]()]);
    await rootfs[Symbol.asyncDispose]();
  });

  test('a spawn afterwards is refused', async () => {
    const rootfs = await OverlayRootfs.create({ layers: [smallRoot()] });
    await rootfs[Symbol.asyncDispose]();
    const error = await refusal(runIsolated('/bin/probe', ['ids'], { rootfs }));
    expect([error.code, error.message]).toMatchInlineSnapshot(`
      [
        "ERR_CLOISTER_DISPOSED",
        "this OverlayRootfs has been disposed",
      ]
    `);
    expect((await refusal(rootfs.branches())).code).toBe('ERR_CLOISTER_DISPOSED');
    const mounted = await refusal(runIsolated('/bin/probe', ['ids'], { rootfs: smallRoot(), mounts: [{ type: 'overlay', source: rootfs, target: '/x' }] }));
    expect(mounted.code).toBe('ERR_CLOISTER_DISPOSED');
  });

  test('while in use: the last user releases it', async () => {
    const before = census(['descriptors']);
    const rootfs = await OverlayRootfs.create({ layers: [smallRoot()] });
    const child = spawnIsolated(
      '/bin/probe',
      toArguments([
        ['create', '/a', 'x'],
        ['block', 'SIGUSR1'],
        ['read', '/a'],
      ]),
      { rootfs },
    );
    const lines = new Lines(child.stdout);
    await lines.until('ready');
    await rootfs[Symbol.asyncDispose]();
    // It is alive, and its root is whole.
    child.kill('SIGUSR1');
    await lines.until(/"text":"x"/);
    expect((await child.exited).exitCode).toBe(0);
    await settled(() => leaks(before, census(['descriptors'])), { what: 'the descriptors' });
  });

  test('before anything has used it: nothing is left', async () => {
    const before = census(['descriptors', 'descendants']);
    for (const options of [{}, { idMap: 'self' }] as const) {
      const rootfs = await OverlayRootfs.create({ layers: [smallRoot()], ...options });
      await rootfs[Symbol.asyncDispose]();
    }
    await settled(() => leaks(before, census(['descriptors', 'descendants'])), { what: 'what it held' });
  });

  test('of one that could not be made: nothing is left', async () => {
    await OverlayRootfs.create({ layers: ['/no/such'] }).catch(() => {});
    const before = census(['descriptors', 'descendants', 'files']);
    for (const upper of ['tmpfs', 'disk', '/no/such/upper']) await refusal(OverlayRootfs.create({ layers: ['/no/such'], upper }));
    await settled(() => leaks(before, census(['descriptors', 'descendants', 'files'])), { what: 'what it held' });
  });
});

testNeeding(['root', 'overlay'])('a root cannot be mounted where there is no directory', async () => {
  const root = await OverlayRootfs.create({ layers: [smallRoot()] });
  const messages: string[] = [];
  for (const target of ['/no/such', '/etc/passwd']) {
    const error = await refusal(root.mount(target));
    messages.push(`${error.code} ${error.message}`);
  }
  expect(messages).toMatchInlineSnapshot(`
    [
      "ERR_CLOISTER_MOUNT ENOENT: mount on a directory of the host /no/such (move_mount): no such file or directory",
      "ERR_CLOISTER_MOUNT EINVAL: mount on a directory of the host /etc/passwd (move_mount): /etc/passwd is no directory",
    ]
  `);
  await root[Symbol.asyncDispose]();
});

describe('a hostile root', () => {
  for (const name of ['proc', 'sys', 'dev']) {
    test(`whose /${name} is a symlink is refused`, async () => {
      const elsewhere = temporary({ 'file.txt': 'of the host' });
      const rootfs = smallRoot({ [name]: `-> ${elsewhere}` });
      const error = await refusal(runIsolated('/bin/probe', ['ids'], { rootfs }));
      expect(error).toMatchObject({ code: 'ERR_CLOISTER_MOUNT', errnoName: 'ELOOP', path: `/${name}` });
      expect(error.message).toBe(
        `ELOOP: mount /${name} (openat2): /${name} is a symlink in this root, or leads through one\n` +
          '  A root whose /proc, /sys or /dev are symlinks is refused: what is mounted there must be found there.',
      );
      expect(readdirSync(elsewhere)).toEqual(['file.txt']);
    });

    test(`whose /${name} is a relative symlink is refused`, async () => {
      const rootfs = smallRoot({ [name]: '-> ../../../../../../tmp' });
      expect(await refusal(runIsolated('/bin/probe', ['ids'], { rootfs }))).toMatchObject({ errnoName: 'ELOOP', path: `/${name}` });
    });
  }

  test('a mount target below a symlink to the outside lands inside', async () => {
    const outside = temporary({ 'precious/file.txt': 'of the host' });
    const rootfs = smallRoot({ way: `-> ${outside}` });
    const mounts = [{ type: 'file', target: '/way/precious/made.txt', contents: 'mine' }] as const;
    // The same absolute path, but from the root's own '/': it has to exist there.
    plant(rootfs, { [`${outside.slice(1)}/precious/`]: '' });
    const [read] = await askIn([['read', `${outside}/precious/made.txt`]], { rootfs, mounts });
    expect(read.text).toBe('mine');
    expect(readdirSync(join(outside, 'precious'))).toEqual(['file.txt']);
  });

  test('a mount target that is a symlink to the outside', async () => {
    const outside = temporary({ 'file.txt': 'of the host' });
    const rootfs = smallRoot({ 'etc/target': `-> ${outside}/file.txt`, [`${outside.slice(1)}/file.txt`]: 'decoy' });
    const [read] = await askIn([['read', '/etc/target']], { rootfs, mounts: [{ type: 'file', target: '/etc/target', contents: 'mine' }] });
    expect(read.text).toBe('mine');
    expect(readFileSync(join(outside, 'file.txt'), 'utf8')).toBe('of the host');
  });

  test('a missing target below a symlink that leads nowhere is not made outside', async () => {
    const outside = temporary();
    const rootfs = smallRoot({ way: `-> ${outside}/deep` });
    const error = await runIsolated('/bin/probe', ['ids'], { rootfs, mounts: [{ type: 'tmpfs', target: '/way/below' }] }).then(
      () => undefined,
      (reason) => reason as IsolationError,
    );
    expect(error === undefined || error instanceof IsolationError).toBe(true);
    expect(readdirSync(outside)).toEqual([]);
    if (error)
      expect(plainly(error.message, outside)).toMatchInlineSnapshot(`
      "ENOENT: mount tmpfs /way/below (openat2): in the root, the way to /way/below goes through a symlink that leads nowhere
        Make what the symlink names, inside the root, or choose another target."
    `);
  });

  test('..-paths end at the root', async () => {
    const rootfs = smallRoot({ up: '-> ../../../../../../../../etc' });
    const [read] = await askIn([['read', '/up/mine.txt']], { rootfs, mounts: [{ type: 'file', target: '/up/mine.txt', contents: 'inside' }] });
    expect(read.text).toBe('inside');
    expect(existsSync('/etc/mine.txt')).toBe(false);
  });

  test('a magic link is not followed', async () => {
    const rootfs = smallRoot({ magic: '-> /proc/self/root' });
    const error = await refusal(runIsolated('/bin/probe', ['ids'], { rootfs, mounts: [{ type: 'tmpfs', target: '/magic/tmp' }] }));
    expect(error.errnoName).toBe('ELOOP');
    expect(error.message).toMatchInlineSnapshot(`
      "ELOOP: mount tmpfs /magic/tmp (openat2): the way to /magic/tmp in this root goes through a link of /proc, or through symlinks without end
        Name the place itself, without such links."
    `);
  });

  test('a working directory that is a symlink to the outside', async () => {
    const outside = temporary({ 'file.txt': '' });
    const rootfs = smallRoot({ way: `-> ${outside}`, [`${outside.slice(1)}/inside.txt`]: '' });
    const [entries, cwd] = await askIn([['ls', '.'], ['cwd']], { rootfs, cwd: '/way' });
    expect([entries.entries, cwd.cwd]).toEqual([['inside.txt'], outside]);
  });

  test('a passwd that is a symlink to the outside', async () => {
    const outside = temporary({ passwd: 'intruder:x:0:0::/:/bin/sh\n' });
    const rootfs = smallRoot();
    rmSync(join(rootfs, 'etc/passwd'));
    symlinkSync(join(outside, 'passwd'), join(rootfs, 'etc/passwd'));
    const error = await refusal(runIsolated('/bin/probe', ['ids'], { rootfs, user: 'intruder' }));
    expect(error.message).toMatchInlineSnapshot(`
      "there is no user 'intruder' in the root's /etc/passwd
        Names are looked up inside; a number needs no entry."
    `);
  });

  test('a fifo as passwd holds nobody up', async () => {
    const rootfs = smallRoot();
    rmSync(join(rootfs, 'etc/passwd'));
    const { exitCode } = await runIsolated('mkfifo', ['/root-of-it/etc/passwd'], { mounts: [{ type: 'bind', source: rootfs, target: '/root-of-it' }] });
    expect([exitCode, lstatSync(join(rootfs, 'etc/passwd')).isFIFO()]).toEqual([0, true]);
    const error = await refusal(runIsolated('/bin/probe', ['ids'], { rootfs, user: 'somebody' }));
    expect(error.code).toBe('ERR_CLOISTER_USER');
  });

  test('masked paths that are symlinks stay inside', async () => {
    const outside = temporary({ 'file.txt': 'of the host' });
    const rootfs = smallRoot({ masked: `-> ${outside}/file.txt`, [`${outside.slice(1)}/file.txt`]: 'decoy' });
    const [read] = await askIn([['read', '/masked']], { rootfs, maskedPaths: ['/masked'] });
    expect(read.text).toBe('');
    expect(readFileSync(join(outside, 'file.txt'), 'utf8')).toBe('of the host');
  });
});

test('directories that are swapped for symlinks while they are looked at stay what they were', async () => {
  // A layer is opened once, by descriptor: what its name means later does not matter.
  const above = temporary({ 'layer/file.txt': 'first', 'other/file.txt': 'second' });
  const base = smallRoot();
  await using rootfs = await OverlayRootfs.create({ layers: [base, join(above, 'layer')], idMap: 'self' });
  renameSync(join(above, 'layer'), join(above, 'away'));
  symlinkSync(join(above, 'other'), join(above, 'layer'));
  const [read] = await askIn([['read', '/file.txt']], { rootfs });
  expect(read.text).toBe('first');
});

test('two roots at once have nothing in common', async () => {
  const layer = smallRoot();
  await using one = await OverlayRootfs.create({ layers: [layer] });
  await using other = await OverlayRootfs.create({ layers: [layer] });
  await askIn([['create', '/of-one']], { rootfs: one });
  const [seen] = await askIn([['stat', '/of-one']], { rootfs: other });
  expect(seen.errno).toBe('ENOENT');
});

testNeeding(['root'])('an upper that is kept keeps its ids, too', async () => {
  const above = temporary({ 'upper/': '' });
  const upper = join(above, 'upper');
  const layers = [smallRoot()];
  const use = async (question: Question) => {
    await using rootfs = await OverlayRootfs.create({ layers, upper });
    return (await ask([question, ['stat', '/kept']], { rootfs })).at(-1);
  };
  const made = await use(['create', '/kept', 'x']);
  // Another root takes other ids meanwhile.
  await ask([['ids']]);
  expect(made).toMatchObject({ errno: null, uid: 0, gid: 0 });
  expect(await use(['append', '/kept', 'y'])).toMatchObject({ errno: null, uid: 0, size: 2 });
  const busy = await OverlayRootfs.create({ layers, upper });
  await expect(OverlayRootfs.create({ layers, upper })).rejects.toMatchObject({ code: 'ERR_CLOISTER_BUSY' });
  await busy[Symbol.asyncDispose]();
});
