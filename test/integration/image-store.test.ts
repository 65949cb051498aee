import { execFileSync } from 'node:child_process';
import { createReadStream, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { type ImageProgress, LayerStore, OverlayRootfs, runIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { all, digestOfFile, digests, newStore, rootTar, sha256, tarOf, told } from '../helpers/images.js';
import { testNeeding } from '../helpers/lane.js';
import { parseAnswers } from '../helpers/questions.js';
import { temporary } from './trees.js';

describe('a layer', () => {
  test('is the same one however its tar is compressed, and is named by the tar', async () => {
    const store = await newStore();
    const tar = tarOf({ a: 'hello', 'd/b': 'there' });
    execFileSync('gzip', ['-k', tar]);
    const layers = [await store.import(tar), await store.import(`${tar}.gz`), await store.import(Readable.from([readFileSync(tar)]))];
    expect(layers.map(({ digest, chainId, path }) => ({ digest, chainId, path }))).toEqual(
      Array(3).fill({ digest: digestOfFile(tar), chainId: digestOfFile(tar), path: layers[0]?.path }),
    );
    expect(readFileSync(join(layers[0]?.path as string, 'd/b'), 'utf8')).toBe('there');
    expect(layers[0]?.sizeBytes).toBe(statSync(tar).size);
    expect(await all(store.layers())).toHaveLength(1);
  });

  testNeeding(['program:zstd'])('may be compressed by zstd, in several frames', async () => {
    const store = await newStore();
    const tar = tarOf({ a: 'x'.repeat(300_000) });
    const half = Math.floor(statSync(tar).size / 2 / 512) * 512;
    const bytes = readFileSync(tar);
    const frames = [bytes.subarray(0, half), bytes.subarray(half)].map((part) => execFileSync('zstd', ['-q', '-c'], { input: part }));
    // A skippable frame, as zstd:chunked has them.
    const skipped = Buffer.from([0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    for (const blob of [Buffer.concat(frames), Buffer.concat([skipped, ...frames])])
      expect((await store.import(Readable.from([blob]))).digest).toBe(sha256(bytes));
    expect(await told(store.import(Readable.from([Buffer.concat(frames).subarray(0, -9)])))).toMatch(/^ERR_CLOISTER_LAYER: a layer's zstd stream is broken/);
  });

  test('under two parents is one directory and two nodes', async () => {
    const store = await newStore();
    const [a, b] = [await store.import(tarOf({ a: 'a' })), await store.import(tarOf({ b: 'b' }))];
    const tar = tarOf({ c: 'c' });
    const [onA, onB] = [await store.import(tar, { parent: a }), await store.import(tar, { parent: b })];
    expect(onA.digest).toBe(onB.digest);
    expect(onA.path).toBe(onB.path);
    expect(onA.chainId).toBe(sha256(`${a.chainId} ${onA.digest}`));
    expect(onA.chainId).not.toBe(onB.chainId);
    expect([onA.parent?.digest, onB.parent?.digest]).toEqual([a.digest, b.digest]);
    expect(digests(await all(a.children()))).toEqual([onA.digest]);
    expect((await store.layer(onB.chainId)).parent?.digest).toBe(b.digest);
    expect(await told(store.layer(onA.digest))).toMatch(/^ERR_CLOISTER_AMBIGUOUS: /);
    const { roots } = await store.tree();
    expect(new Map(roots.map(({ layer, children }) => [layer.digest, children.map((child) => child.layer.chainId)]))).toEqual(
      new Map([
        [a.digest, [onA.chainId]],
        [b.digest, [onB.chainId]],
      ]),
    );
  });

  test('tells how far it is, and ends when it is told to', async () => {
    const store = await newStore();
    const tar = tarOf({ a: 'x'.repeat(3_000_000) });
    const seen: ImageProgress[] = [];
    await store.import(tar, { onProgress: (progress) => seen.push(progress) });
    const size = statSync(tar).size;
    expect(seen.length).toBeGreaterThan(2);
    expect(seen.at(-1)).toEqual({ digest: '', doneBytes: size, totalBytes: size });
    const controller = new AbortController();
    const other = tarOf({ a: 'y'.repeat(3_000_000) });
    const reason = new Error('enough');
    await expect(store.import(other, { signal: controller.signal, onProgress: () => controller.abort(reason) })).rejects.toBe(reason);
    await expect(store.import(other, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(await all(store.layers())).toHaveLength(1);
  });

  test.each([0, 1, 2000])('of which %i bytes have come ends when it is told to', async (length) => {
    const store = await newStore();
    const controller = new AbortController();
    const source = new PassThrough();
    source.write(readFileSync(tarOf({ a: 'x'.repeat(5000) })).subarray(0, length));
    const reason = new Error('enough');
    setTimeout(() => controller.abort(reason), 50);
    await expect(store.import(source, { signal: controller.signal })).rejects.toBe(reason);
    expect(source.destroyed).toBe(true);
  });

  test('whose file cannot be opened fails by its promise alone', async () => {
    const store = await newStore();
    await expect(store.import(createReadStream('/nothing'))).rejects.toMatchObject({ code: 'ENOENT', path: '/nothing' });
  });

  test('that is there twice is seen where it is uppermost', async () => {
    const store = await newStore();
    const [base, a, b] = [await store.import(rootTar()), await store.import(tarOf({ a: 'a', x: 'a' })), await store.import(tarOf({ a: 'b' }))];
    const image = await store.createImage({ layers: [base, a, b, a] });
    expect(digests(image.layers)).toEqual(digests([base, a, b, a]));
    const { stdout } = await runIsolated('/bin/probe', ['read', '/a', '--', 'read', '/x'], { rootfs: image });
    expect(
      stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).text),
    ).toEqual(['a', 'a']);
    await using rootfs = await OverlayRootfs.create({ layers: image.layers });
    expect((await rootfs.commit(store)).parent?.chainId).toBe(image.layers.at(-1)?.chainId);
  });

  test('that is too big, cut short or no tar is refused, and nothing of it stays', async () => {
    const directory = join(temporary(), 'store');
    const store = await newStore(directory);
    const bomb = gzipSync(Buffer.alloc(50_000_000));
    const tar = readFileSync(tarOf({ a: 'x'.repeat(100_000) }));
    const failing = Readable.from(
      (async function* () {
        yield tar.subarray(0, 2000);
        throw new Error('the source has failed');
      })(),
    );
    expect(await told(store.import(Readable.from([bomb]), { sizeLimit: '1M' }))).toBe(
      'ERR_CLOISTER_LAYER: the layer is bigger than sizeLimit: more than 1048576 bytes uncompressed',
    );
    expect(await told(store.import(Readable.from([tar]), { sizeLimit: 50_000 }))).toMatch(/^ERR_CLOISTER_LAYER: .*50000/);
    expect(await told(store.import(Readable.from([gzipSync(tar).subarray(0, -20)])))).toMatch(/^ERR_CLOISTER_LAYER: /);
    expect(await told(store.import(Readable.from([tar.subarray(0, 50_000)])))).toMatch(/^ERR_CLOISTER_LAYER: /);
    expect(await told(store.import(Readable.from([Buffer.from('this is no tar at all, but a text'.repeat(100))])))).toMatch(/^ERR_CLOISTER_LAYER: /);
    expect(await told(store.import(Readable.from([Buffer.from('BZh91AY&SY12345678')])))).toMatch(/^ERR_CLOISTER_LAYER: the layer is compressed by xz or bzip2/);
    expect(await told(store.import(failing))).toMatch(/the source has failed/);
    expect(await told(store.import(join(directory, 'nothing')))).toMatch(/^ERR_CLOISTER_NOT_FOUND: ENOENT/);
    expect(await all(store.layers())).toEqual([]);
    expect(readdirSync(join(directory, 'temp'))).toEqual([]);
    expect(readdirSync(join(directory, 'blobs/sha256'))).toEqual([]);
  });

  test('has its options checked before anything is done', async () => {
    const store = await newStore();
    const wrong = async (work: () => Promise<unknown>): Promise<string> => {
      const error = await work().then(
        () => undefined,
        (reason: Error) => reason,
      );
      expect(error).toBeInstanceOf(TypeError);
      return (error as Error & { option: string }).option;
    };
    const loose = store as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
    expect(await wrong(() => LayerStore.open('' as string))).toBe('directory');
    expect(await wrong(() => loose['import']?.(7) as Promise<unknown>)).toBe('tar');
    expect(await wrong(() => loose['import']?.('/x', { sizeLimit: 'much' }) as Promise<unknown>)).toBe('sizeLimit');
    expect(await wrong(() => loose['import']?.('/x', { sizelimit: 1 }) as Promise<unknown>)).toBe('sizelimit');
    expect(await wrong(() => loose['import']?.('/x', { parent: {} }) as Promise<unknown>)).toBe('parent');
    for (const path of ['', '/a\0b']) expect(await wrong(() => store.import(path))).toBe('tar');
    expect(await wrong(() => store.importImage(''))).toBe('source');
    expect(await wrong(() => loose['createImage']?.({ layers: [], config: null }) as Promise<unknown>)).toBe('layers');
    expect(await wrong(() => loose['createImage']?.({ layers: [] }) as Promise<unknown>)).toBe('layers');
    expect(await wrong(() => loose['layer']?.('latest') as Promise<unknown>)).toBe('digestOrChainId');
    expect(await wrong(() => loose['pull']?.('UPPER/case') as Promise<unknown>)).toBe('reference');
    expect(await wrong(() => loose['pull']?.('a', { auth: { username: 'x' } }) as Promise<unknown>)).toBe('auth');
    expect(await wrong(() => loose['pull']?.('a', { auth: { token: 'a\r\nb: c' } }) as Promise<unknown>)).toBe('auth.token');
    expect(await wrong(() => loose['remove']?.('sha256:') as Promise<unknown>)).toBe('what');
    await store[Symbol.asyncDispose]();
    expect(await told(store.gc())).toMatch(/^ERR_CLOISTER_DISPOSED/);
  });
});

describe('an image', () => {
  test('is the same for the same layers and config, and keeps its name', async () => {
    const store = await newStore();
    const [base, top] = [await store.import(rootTar()), await store.import(tarOf({ top: '' }))];
    const config = { Cmd: ['a', 'b'], Entrypoint: ['/bin/e'], Labels: { x: 'y' } };
    const image = await store.createImage({ layers: [base, top], config, name: 'mine' });
    const again = await store.createImage({ layers: [base, top], config });
    expect(again.digest).toBe(image.digest);
    expect({ ...image.config }).toEqual(config);
    expect(digests(image.layers)).toEqual([base.digest, top.digest]);
    expect(image.layers[1]?.parent?.digest).toBe(base.digest);
    expect((await store.image('mine')).digest).toBe(image.digest);
    expect((await store.image(image.digest)).name).toBeUndefined();
    expect(await told(store.image('yours'))).toMatch(/^ERR_CLOISTER_NOT_FOUND: there is no image "yours"/);
    expect((await all(store.images())).map(({ name }) => name)).toEqual(['mine']);
    expect(image.argv()).toEqual(['/bin/e', 'a', 'b']);
    expect(image.argv(['c'])).toEqual(['/bin/e', 'c']);
    expect((await store.createImage({ layers: [base], config: { Cmd: ['x'] } })).argv(['y'])).toEqual(['y']);
    const bare = await store.createImage({ layers: [base] });
    expect(() => bare.argv()).toThrow(/names no command/);
    const { roots } = await store.tree();
    expect(roots.find(({ layer }) => layer.digest === base.digest)?.children.map(({ images }) => images)).toEqual([['mine']]);
  });

  test('is the root, and says environment, user, directory', async () => {
    const store = await newStore();
    const base = await store.import(rootTar({ 'etc/passwd': 'root:x:0:0::/root:/bin/sh\n', 'work/here': '' }));
    const image = await store.createImage({
      layers: [base],
      config: { Env: ['A=1', 'B=2=3', 'PATH=/bin'], WorkingDir: '/work', User: 'root:0', Cmd: ['probe', 'env', '--', 'cwd', '--', 'ids'] },
    });
    const [command, ...args] = image.argv();
    const look = async (options: object = {}) => {
      const { stdout, stderr } = await runIsolated(command, args, { rootfs: image, ...options });
      const [env, cwd, ids] = parseAnswers(['env', 'cwd', 'ids'], stdout, stderr);
      return { env: env.env, cwd: cwd.cwd, uid: ids.euid };
    };
    const { env, ...rest } = await look();
    expect(rest).toEqual({ cwd: '/work', uid: 0 });
    expect(env).toMatchObject({ A: '1', B: '2=3', PATH: '/bin' });
    expect(await look({ env: { B: 'mine', A: undefined }, cwd: '/etc' })).toMatchObject({ env: { B: 'mine', PATH: '/bin' }, cwd: '/etc' });
  });

  test('takes arguments as an array of strings', async () => {
    const store = await newStore();
    const image = await store.createImage({ layers: [await store.import(tarOf({ a: 'a' }))], config: { Entrypoint: ['/a'] } });
    expect(image.argv(['b'])).toEqual(['/a', 'b']);
    for (const args of ['b', null, ['b', 1]]) expect(() => image.argv(args as string[])).toThrow(/^option 'args/);
  });

  test('whose config nobody could run is refused by name', async () => {
    const store = await newStore();
    const base = await store.import(rootTar());
    const tell = async (config: object): Promise<string> => {
      const image = await store.createImage({ layers: [base], config });
      return await told((async () => await runIsolated('/bin/probe', [], { rootfs: image }))());
    };
    expect(await tell({ WorkingDir: 'work' })).toMatch(/^ERR_CLOISTER_IMAGE: .* has WorkingDir "work", which has to be an absolute path/);
    expect(await tell({ User: 'a:b:c' })).toMatch(/^ERR_CLOISTER_IMAGE: .* has User "a:b:c"/);
    expect(await tell({ User: 'nobody-here' })).toMatch(/^ERR_CLOISTER_USER: /);
  });

  test("of what a program wrote is that program's base and a layer more", async () => {
    const store = await newStore();
    const base = await store.import(rootTar({ gone: 'x', kept: 'y' }));
    const image = await store.createImage({ layers: [base] });
    const root = await OverlayRootfs.create({ layers: image.layers });
    try {
      await runIsolated('/bin/probe', ['create', '/made', 'text', '--', 'unlink', '/gone'], { rootfs: root });
      const layer = await root.commit(store);
      expect(layer.parent?.chainId).toBe(base.chainId);
      const second = await store.createImage({ layers: [...image.layers, layer] });
      const { stdout } = await runIsolated('/bin/probe', ['ls', '/', '--', 'read', '/made'], { rootfs: second });
      expect(stdout).toContain('"made"');
      expect(stdout).toContain('"kept"');
      expect(stdout).not.toContain('"gone"');
      expect(stdout).toContain('text');
      // A fork has a layer for what came before it.
      const fork = await root.fork();
      await runIsolated('/bin/probe', ['create', '/later', ''], { rootfs: fork });
      const top = await fork.commit(store);
      await fork[Symbol.asyncDispose]();
      expect([top.parent?.digest, top.parent?.parent?.digest]).toEqual([layer.digest, base.digest]);
      expect(existsSync(join(top.path, 'later')) && !existsSync(join(top.path, 'made'))).toBe(true);
    } finally {
      await root[Symbol.asyncDispose]();
    }
    expect(await store.verify()).toMatchObject({ ok: true, problems: [] });
  });

  test('comes back from each format as it was', async () => {
    const [store, other] = [await newStore(), await newStore()];
    const base = await store.import(rootTar());
    const top = await store.import(tarOf({ 'a/b': 'c', '.wh.nothing': '' }));
    const image = await store.createImage({ layers: [base, top, base], config: { Cmd: ['/bin/probe'] }, name: 'x/y:1' });
    const directory = temporary();
    for (const format of ['oci-layout', 'oci-archive', 'docker-archive'] as const) {
      const target = join(directory, format);
      await store.exportImage(image, target, { format });
      const back = await other.importImage(target);
      expect([format, back.name, digests(back.layers), back.config]).toEqual([format, 'x/y:1', digests(image.layers), image.config]);
      // Of an archive of Docker's, whose layers have been there before, the manifest is made anew.
      expect(back.digest).toBe(image.digest);
      expect(await told(store.exportImage(image, target, { format }))).toMatch(/^ERR_CLOISTER_EXPORT: .* exists already/);
    }
    execFileSync('gzip', ['-k', join(directory, 'docker-archive')]);
    const third = await newStore();
    expect(digests((await third.importImage(join(directory, 'docker-archive.gz'), { name: 'n' })).layers)).toEqual(digests(image.layers));
    expect((await third.image('n')).config).toEqual(image.config);
    for (const checked of [store, other, third]) expect(await checked.verify()).toMatchObject({ ok: true });
  });

  test('may be for several platforms, or one of several in a layout', async () => {
    const store = await newStore();
    const [amd, arm] = [await store.import(tarOf({ amd: '' })), await store.import(tarOf({ arm: '' }))];
    const layout = join(temporary(), 'layout');
    const images = [await store.createImage({ layers: [amd], name: 'amd' }), await store.createImage({ layers: [arm], name: 'arm' })];
    await store.exportImage(images[0] as never, layout);
    const extra = `${layout}-2`;
    await store.exportImage(images[1] as never, extra);
    const entries = [layout, extra].map((path) => JSON.parse(readFileSync(join(path, 'index.json'), 'utf8')).manifests[0]);
    execFileSync('cp', ['-r', `${extra}/blobs`, layout]);
    const write = (manifests: unknown): void => writeFileSync(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
    // Two names.
    write(entries);
    expect(await told((await newStore()).importImage(layout))).toBe('ERR_CLOISTER_AMBIGUOUS: the layout has several images: amd, arm');
    expect(digests((await (await newStore()).importImage(`${layout}:arm`)).layers)).toEqual([arm.digest]);
    expect(await told((await newStore()).importImage(`${layout}:mips`))).toMatch(/^ERR_CLOISTER_NOT_FOUND: the layout has no image called 'mips'/);
    // One image, for two platforms, directly and by an index of its own.
    const platforms = [
      { architecture: 'amd64', os: 'linux' },
      { architecture: 'arm64', os: 'linux', variant: 'v8' },
    ];
    const both = entries.map(({ annotations: _, ...entry }, index) => ({ ...entry, platform: platforms[index] }));
    write(both);
    const pick = async (architecture: string) => digests((await (await newStore()).importImage(layout, { platform: { architecture } })).layers);
    expect([await pick('amd64'), await pick('arm64')]).toEqual([[amd.digest], [arm.digest]]);
    const index = JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: both });
    writeFileSync(join(layout, 'blobs/sha256', sha256(index).slice(7)), index);
    write([{ mediaType: 'application/vnd.oci.image.index.v1+json', digest: sha256(index), size: index.length }]);
    expect([await pick('amd64'), await pick('arm64')]).toEqual([[amd.digest], [arm.digest]]);
    expect(await told(pick('s390x'))).toBe('ERR_CLOISTER_NOT_FOUND: there is no image for linux/s390x; there is linux/amd64, linux/arm64/v8');
  });

  test('shares with another what both have', async () => {
    const directory = join(temporary(), 'store');
    const store = await newStore(directory);
    const layers = [];
    for (let n = 0; n < 11; n++) layers.push(await store.import(tarOf({ [`file${n}`]: String(n).repeat(200_000) })));
    const sizes = (): number => readdirSync(join(directory, 'layers')).length;
    // Of what came uncompressed each byte is there once.
    const used = Number(execFileSync('du', ['-sB1', directory], { encoding: 'utf8' }).split('\t')[0]);
    await store.createImage({ layers: layers.slice(0, 10), name: 'one' });
    await store.createImage({ layers: [...layers.slice(0, 9), layers[10] as never], name: 'two' });
    await store.gc();
    expect(sizes()).toBe(11);
    expect(used).toBeLessThan(11 * 300_000);
    for (const name of ['one', 'two']) {
      const image = await store.image(name);
      const { stdout } = await runIsolated('/probe', ['ls', '/'], {
        rootfs: await store.createImage({ layers: [...image.layers, await store.import(probeTar())] }),
      });
      expect(JSON.parse(stdout.split('\n')[0] as string).entries.filter((entry: string) => entry.startsWith('file'))).toHaveLength(10);
    }
  });
});

function probeTar(): string {
  const tar = rootTar();
  const directory = temporary();
  mkdirSync(join(directory, 'x'));
  execFileSync('tar', ['-C', join(directory, 'x'), '-xf', tar, './bin/probe', '--strip-components=2']);
  const out = join(directory, 'probe.tar');
  execFileSync('tar', ['-C', join(directory, 'x'), '-cf', out, 'probe']);
  return out;
}

describe('what is not needed', () => {
  test('goes with gc(), what an image uses stays', async () => {
    const store = await newStore();
    const [used, child, unused] = [await store.import(tarOf({ a: '' })), await store.import(tarOf({ b: '' })), await store.import(tarOf({ c: '' }))];
    await store.createImage({ layers: [used, child], name: 'i' });
    const { removed, freedBytes } = await store.gc();
    // The child has been a layer without a parent, too.
    expect([...removed].sort()).toEqual([child.chainId, unused.digest].sort());
    expect(freedBytes).toBe(unused.sizeBytes);
    expect(existsSync(unused.path)).toBe(false);
    expect(existsSync(used.path) && existsSync(child.path)).toBe(true);
    expect(await told(store.createImage({ layers: [unused] }))).toMatch(/^ERR_CLOISTER_NOT_FOUND: there is no layer/);
    await store.remove(await store.image('i'));
    expect((await store.gc()).removed).toHaveLength(2);
    expect(await store.verify()).toEqual({ ok: true, checked: 0, problems: [] });
  });

  test("stays while a root is on it, or another store's object has imported it", async () => {
    const directory = join(temporary(), 'store');
    const [store, other] = [await newStore(directory), await newStore(directory)];
    const [mine, theirs] = [await store.import(rootTar()), await other.import(tarOf({ b: '' }))];
    const root = await OverlayRootfs.create({ layers: [mine] });
    expect((await store.gc()).removed).toEqual([]);
    expect(await told(store.remove(mine))).toMatch(/^ERR_CLOISTER_BUSY: the layer .* is used by a root/);
    const fork = await root.fork();
    await root[Symbol.asyncDispose]();
    expect((await store.gc()).removed).toEqual([]);
    await fork[Symbol.asyncDispose]();
    expect((await store.gc()).removed).toEqual([mine.digest]);
    await other[Symbol.asyncDispose]();
    expect((await store.gc()).removed).toEqual([theirs.digest]);
    expect(await told(OverlayRootfs.create({ layers: [mine] }))).toMatch(/^ERR_CLOISTER_NOT_FOUND/);
  });

  test('can be removed alone, what is needed cannot', async () => {
    const store = await newStore();
    const base = await store.import(tarOf({ a: '' }));
    const child = await store.import(tarOf({ b: '' }), { parent: base });
    expect(await told(store.remove(base))).toMatch(/^ERR_CLOISTER_IN_USE: .* is used by the layer/);
    const image = await store.createImage({ layers: [base, child], name: 'i' });
    await store.createImage({ layers: [base, child], name: 'j' });
    expect(await told(store.remove(child))).toMatch(/^ERR_CLOISTER_IN_USE: .* is used by the image i/);
    await store.remove(image);
    expect((await all(store.images())).map(({ name }) => name)).toEqual(['j']);
    await store.remove(await store.image(image.digest));
    expect(await all(store.images())).toEqual([]);
    await store.remove(child);
    await store.remove(base);
    expect(await all(store.layers())).toEqual([]);
    expect(await told(store.remove(base))).toMatch(/^ERR_CLOISTER_NOT_FOUND/);
  });
});

describe('verify()', () => {
  test('finds what has been changed', async () => {
    const directory = join(temporary(), 'store');
    const store = await newStore(directory);
    const layers = [await store.import(tarOf({ a: 'good', b: '' })), await store.import(tarOf({ c: '' }))];
    const image = await store.createImage({ layers, name: 'i' });
    expect(await store.verify()).toMatchObject({ ok: true });
    writeFileSync(join(layers[0]?.path as string, 'a'), 'evil');
    const blob = join(directory, 'blobs/sha256', image.digest.slice(7));
    writeFileSync(blob, `${readFileSync(blob, 'utf8')} `);
    const { ok, problems } = await store.verify();
    expect(ok).toBe(false);
    expect(
      problems.map(({ digest, problem }) => `${digest === layers[0]?.digest ? 'layer' : digest === image.digest ? 'image' : digest}: ${problem.split(':')[0]}`),
    ).toEqual([
      'image: the blob has other bytes',
      'layer: its files are not those of its tar any more',
      'image: a blob of the store is not what its digest or size says',
    ]);
  });

  test('finds what is missing', async () => {
    const directory = join(temporary(), 'store');
    const store = await newStore(directory);
    const layer = await store.import(createReadStream(tarOf({ a: '' })));
    await store.createImage({ layers: [layer], name: 'i' });
    execFileSync('rm', ['-r', join(directory, 'layers', layer.digest.slice(7))]);
    const { problems } = await store.verify();
    expect(problems).toEqual([{ digest: layer.chainId, problem: `its layer ${layer.digest} is not there` }]);
  });
});

test('a directory that is something else is left alone', async () => {
  const directory = temporary({ precious: 'x' });
  expect(await told(LayerStore.open(directory))).toMatch(/^ERR_CLOISTER_STORE: .* it has no file 'version', but precious/);
  expect(readdirSync(directory)).toEqual(['precious']);
  expect(await told(LayerStore.open(join(directory, 'precious')))).toMatch(/^ERR_CLOISTER_STORE: /);
  const store = join(temporary(), 's');
  await (await LayerStore.open(store))[Symbol.asyncDispose]();
  expect(lstatSync(store).mode & 0o777).toBe(0o700);
});

test('a directory that cannot be made is refused', async () => {
  expect(await told(LayerStore.open('/proc/new'))).toMatch(/^ERR_CLOISTER_STORE: ENOENT: open the store \/proc\/new \(mkdir\): /);
  expect(await told(LayerStore.open('/proc/new/store'))).toMatch(/^ERR_CLOISTER_STORE: ENOENT: open the store \/proc\/new \(mkdir\): /);
}, 5000);

test('a store that is taken away, or disposed of meanwhile, says so', async () => {
  const directory = join(temporary(), 'store');
  const store = await LayerStore.open(directory);
  const layer = await store.import(tarOf({ a: 'a' }));
  const source = new PassThrough();
  const importing = store.import(source);
  await store[Symbol.asyncDispose]();
  createReadStream(tarOf({ b: 'b' })).pipe(source);
  expect(await told(importing)).toBe('ERR_CLOISTER_DISPOSED: this LayerStore has been disposed');
  const again = await LayerStore.open(directory);
  rmSync(directory, { recursive: true });
  const gone = /^ERR_CLOISTER_STORE: ENOENT: /;
  expect(await told(again.import(tarOf({ a: 'a' })))).toMatch(gone);
  expect(await told(again.gc())).toMatch(gone);
  expect(await told(OverlayRootfs.create({ layers: [layer] }))).toMatch(gone);
  const reads = [
    () => all(again.layers()),
    () => all(again.images()),
    () => again.tree(),
    () => again.layer(layer.digest),
    () => again.image('name'),
    () => again.image(layer.digest),
  ];
  for (const read of reads) {
    expect(await told(read())).toMatch(/^ERR_CLOISTER_STORE: ENOENT: read the store .*: no such file or directory$/);
  }
});

test('a layer whose files are gone is refused by their path', async () => {
  const store = await newStore();
  const layer = await store.import(rootTar());
  rmSync(layer.path, { recursive: true });
  await expect(OverlayRootfs.create({ layers: [layer] }).then((root) => root[Symbol.asyncDispose]())).rejects.toMatchObject({
    code: 'ERR_CLOISTER_ROOTFS',
    path: layer.path,
    message: expect.stringMatching(`^ENOENT: use a layer ${layer.path} \\((openat|open_tree)\\): `),
  });
});

test('many may open one that is not there yet, and one whose maker was killed is made whole', async () => {
  const directory = join(temporary(), 'store');
  const stores = await Promise.all(Array.from({ length: 8 }, () => LayerStore.open(directory)));
  for (const store of stores) await store[Symbol.asyncDispose]();
  rmSync(join(directory, 'version'));
  for (const later of ['names', 'recent']) rmSync(join(directory, later), { recursive: true });
  const store = await LayerStore.open(directory);
  await store.import(tarOf({ a: 'a' }));
  await store[Symbol.asyncDispose]();
  rmSync(join(directory, 'version'));
  expect(await told(LayerStore.open(directory))).toMatch(/^ERR_CLOISTER_STORE: .* is no layer store of this version: it has no file 'version', but /);
});
