// A layer that came uncompressed is on disk once: as its tree, and the recipe by which the tree is that tar again.
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { type Layer, LayerStore } from 'cloister';
import { expect, onTestFinished, test } from 'vitest';
import { newStore, sha256, tarOf, told } from '../helpers/images.js';
import { archive, directory, file, hardLink, pax, sparse } from '../helpers/raw-tar.js';
import { temporary } from './trees.js';

const isRoot = process.geteuid?.() === 0;

interface Place {
  readonly path: string;
  readonly store: LayerStore;
}

async function place(): Promise<Place> {
  const path = join(temporary(), 'store');
  return { path, store: await newStore(path) };
}

const hex = (digest: string): string => digest.slice('sha256:'.length);
const recipeOf = ({ path }: Place, { digest }: Layer): string => join(path, 'layers', hex(digest), 'recipe');

/** How a layer's tar is kept. */
function kept(where: Place, layer: Layer): string[] {
  const found = [];
  if (existsSync(recipeOf(where, layer))) found.push('recipe');
  if (readdirSync(join(where.path, 'blobs/sha256')).includes(hex(layer.digest))) found.push('blob');
  return found;
}

/** The tar, as `docker load` would get it. */
async function tarBack({ store }: Place, layer: Layer): Promise<Buffer> {
  const target = join(temporary(), 'out.tar');
  await store.exportImage(await store.createImage({ layers: [layer] }), target, { format: 'docker-archive' });
  return execFileSync('tar', ['-xOf', target, `${hex(layer.digest)}.tar`], { maxBuffer: 2 ** 28 });
}

const many = (): Buffer =>
  archive(
    directory('d'),
    file('d/a', Buffer.alloc(300_000, 'abc')),
    file('d/empty'),
    hardLink('d/link', 'd/a'),
    pax({ path: `${'deep/'.repeat(30)}file`, comment: 'kept as well', 'SCHILY.xattr.user.k': 'v' }),
    file('x', 'content'),
    file('zeros', Buffer.alloc(100_000)),
    sparse(
      'holes',
      200_000,
      [
        [0, 1],
        [100_000, 3],
      ],
      Buffer.from('abcd'),
    ),
    file('.wh.gone'),
  );

/** What follows the end is a part of it, too. */
const trailed = (): Buffer => Buffer.concat([archive(file('a', 'x')), Buffer.alloc(3000, 'trailer')]);

test.each([
  ['a file', (tar: string) => ({ source: tar, options: {} })],
  ['a file, watched', (tar: string) => ({ source: tar, options: { onProgress: () => {} } })],
  ['a stream', (tar: string) => ({ source: Readable.from([readFileSync(tar)]), options: {} })],
] as const)('%s comes back bit by bit, and is there once', async (_, how) => {
  const where = await place();
  const tars = [trailed(), archive(directory('d'), file('d/a', Buffer.alloc(300_000, 'abc')), hardLink('l', 'd/a')), readFileSync(tarOf({ a: 'b' }))];
  for (const bytes of isRoot ? tars : tars.slice(0, 1)) {
    const tar = join(temporary(), 'tar');
    writeFileSync(tar, bytes);
    const { source, options } = how(tar);
    const layer = await where.store.import(source, options);
    expect([layer.digest, layer.sizeBytes]).toEqual([sha256(bytes), bytes.length]);
    expect(kept(where, layer)).toEqual(['recipe']);
    expect(statSync(recipeOf(where, layer)).size).toBeLessThan(3000);
    expect((await tarBack(where, layer)).equals(bytes)).toBe(true);
  }
  expect(await where.store.verify()).toMatchObject({ ok: true, problems: [] });
});

test('a layout with uncompressed layers goes out with the digests that it came with', async () => {
  const from = await place();
  const tar = tarOf({ a: 'x'.repeat(100_000), 'd/b': 'y' });
  // docker-archive has them uncompressed, and an import of one names them so.
  const docker = join(temporary(), 'docker.tar');
  await from.store.exportImage(await from.store.createImage({ layers: [await from.store.import(tar)], name: 'n:1' }), docker, { format: 'docker-archive' });
  const [where, other] = [await place(), await place()];
  const image = await where.store.importImage(docker);
  for (const format of ['oci-layout', 'oci-archive'] as const) {
    const target = join(temporary(), format);
    await where.store.exportImage(image, target, { format });
    const back = await other.store.importImage(target);
    expect([format, back.digest]).toEqual([format, image.digest]);
    expect(kept(other, back.layers[0] as Layer)).toEqual(['recipe']);
  }
  expect(kept(where, image.layers[0] as Layer)).toEqual(['recipe']);
  expect(await other.store.verify()).toMatchObject({ ok: true });
});

test('all that a tar can have is in a recipe, but for a name that it has twice', async () => {
  const where = await place();
  const layer = await where.store.import(Readable.from([many()]));
  expect(kept(where, layer)).toEqual(['recipe']);
  expect((await tarBack(where, layer)).equals(many())).toBe(true);
  for (const again of [
    archive(file('a', 'first'), file('b', 'between'), file('a', 'second')),
    archive(directory('d'), file('d/a', 'x'), file('d', 'a file now')),
    archive(file('a', 'x'), hardLink('b', 'a'), file('a', 'y')),
  ]) {
    const other = await where.store.import(Readable.from([again]));
    expect(kept(where, other)).toEqual(['blob']);
    expect((await tarBack(where, other)).equals(again)).toBe(true);
  }
  expect(await where.store.verify()).toMatchObject({ ok: true, problems: [] });
});

test('verify() finds whatever makes another tar of it, and nothing of that goes out', async () => {
  const changes: Record<string, (where: Place, layer: Layer) => void> = {
    'other bytes': (_, { path }) => writeFileSync(join(path, 'd/a'), 'evil'),
    'a longer file': (_, { path }) => writeFileSync(join(path, 'd/a'), 'good and more'),
    'a file less': (_, { path }) => rmSync(join(path, 'd/a')),
    'a fifo that nobody writes to': (_, { path }) => {
      rmSync(join(path, 'd/a'));
      execFileSync('mkfifo', [join(path, 'd/a')]);
    },
    'a symlink out': (_, { path }) => {
      rmSync(join(path, 'd/a'));
      execFileSync('ln', ['-s', '/etc/passwd', join(path, 'd/a')]);
    },
    'a directory that is a symlink': (_, { path }) => {
      renameSync(join(path, 'd'), join(path, 'e'));
      execFileSync('ln', ['-s', 'e', join(path, 'd')]);
    },
    'other permissions': (_, { path }) => chmodSync(join(path, 'd/a'), 0o600),
    'another time': (_, { path }) => utimesSync(join(path, 'd/a'), 1, 1),
    'a recipe cut short': (where, layer) => truncateSync(recipeOf(where, layer), statSync(recipeOf(where, layer)).size - 3),
    'an empty recipe': (where, layer) => truncateSync(recipeOf(where, layer)),
    'a recipe of other bytes': (where, layer) => {
      const bytes = readFileSync(recipeOf(where, layer));
      bytes[20] = (bytes[20] as number) ^ 0xff;
      writeFileSync(recipeOf(where, layer), bytes);
    },
    'no recipe': (where, layer) => rmSync(recipeOf(where, layer)),
  };
  // An ordinary user's takes some processes for each.
  const chosen = Object.entries(changes).filter(([what]) => isRoot || ['a longer file', 'a fifo that nobody writes to', 'another time'].includes(what));
  const found: Record<string, string> = {};
  for (const [what, change] of chosen) {
    const where = await place();
    const layer = await where.store.import(tarOf({ 'd/a': 'good', b: '' }));
    const image = await where.store.createImage({ layers: [layer] });
    // What it was compressed to is another blob, of which the tar can be had as well.
    const docker = join(temporary(), 'docker.tar');
    await where.store.exportImage(image, docker, { format: 'docker-archive' });
    const second = await place();
    const uncompressed = await second.store.importImage(docker);
    const other = uncompressed.layers[0] as Layer;
    change(second, other);
    const { problems } = await second.store.verify();
    const told1 = problems.map(({ problem }) => problem.replaceAll(hex(layer.digest), 'LAYER').replaceAll(/sha256:(?!LAYER)[0-9a-f]{64}/g, 'OTHER'));
    const target = join(temporary(), 'out');
    const out = await told(second.store.exportImage(uncompressed, target));
    const unchanged = ['other permissions', 'another time'].includes(what);
    expect([what, existsSync(target), out === 'done']).toEqual([what, unchanged, unchanged]);
    found[what] = told1.map((line) => line.split('\n')[0]).join('; ');
  }
  expect(Object.keys(found)).toEqual(chosen.map(([what]) => what));
  if (!isRoot) return;
  expect(found).toMatchInlineSnapshot(`
    {
      "a directory that is a symlink": "the files of the layer sha256:LAYER are not those of its tar any more: ENOTDIR: openat2 /d: not a directory",
      "a fifo that nobody writes to": "the files of the layer sha256:LAYER are not those of its tar any more: ESTALE: openat2 /d/a: stale file handle",
      "a file less": "the files of the layer sha256:LAYER are not those of its tar any more: ENOENT: openat2 /d/a: no such file or directory",
      "a longer file": "the files of the layer sha256:LAYER are not those of its tar any more: /d/a: it has 13 bytes, and had 4",
      "a recipe cut short": "the files of the layer sha256:LAYER are not those of its tar any more: the recipe is damaged",
      "a recipe of other bytes": "the files of the layer sha256:LAYER are not those of its tar any more: the recipe is damaged",
      "a symlink out": "the files of the layer sha256:LAYER are not those of its tar any more: ESTALE: openat2 /d/a: stale file handle",
      "an empty recipe": "the files of the layer sha256:LAYER are not those of its tar any more: the recipe is damaged",
      "another time": "its files are not those of its tar any more",
      "no recipe": "the blob with its tar is not there",
      "other bytes": "the files of the layer sha256:LAYER are not those of its tar any more: they make OTHER",
      "other permissions": "its files are not those of its tar any more",
    }
  `);
});

test('a store that has the tar as a blob, as older versions have left it, goes on working', async () => {
  const where = await place();
  const tar = tarOf({ a: 'x'.repeat(10_000) });
  const layer = await where.store.import(tar);
  rmSync(recipeOf(where, layer));
  writeFileSync(join(where.path, 'blobs/sha256', hex(layer.digest)), readFileSync(tar));
  expect(await where.store.verify()).toMatchObject({ ok: true, problems: [] });
  const again = await LayerStore.open(where.path);
  onTestFinished(() => again[Symbol.asyncDispose]());
  expect((await again.import(tar)).digest).toBe(layer.digest);
  expect(kept(where, layer)).toEqual(['blob']);
  expect((await tarBack({ ...where, store: again }, layer)).equals(readFileSync(tar))).toBe(true);
});
