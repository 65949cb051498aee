// What has been put into a store can be used before it is on the disk, and is not trusted after a start of the machine that came between.
import { existsSync, readdirSync, readFileSync, renameSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type Image, LayerStore } from 'cloister';
import { beforeEach, expect, onTestFinished, test, vi } from 'vitest';
import { startChild } from '../helpers/harness.js';
import { all, digests, sha256, tarOf, told } from '../helpers/images.js';
import { settled } from '../helpers/settled.js';
import { temporary } from './trees.js';

const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
const hex = (digest: string): string => digest.slice('sha256:'.length);

/** What is done in the background waits until a test wants it. */
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
});

/** Records that are not on the disk yet. */
const recent = (path: string): string[] =>
  ['tars', 'chains', 'images', 'names'].flatMap((kind) => readdirSync(join(path, 'recent', boot, kind)).map(() => kind));

/** As if the machine had been started since then. */
const startAgain = (path: string): void => renameSync(join(path, 'recent', boot), join(path, 'recent/01234567-89ab-cdef-0123-456789abcdef'));

async function opened(path: string): Promise<LayerStore> {
  const store = await LayerStore.open(path);
  onTestFinished(() => store[Symbol.asyncDispose]());
  return store;
}

/** A store that has a base on the disk, named 'n', and, not there yet, a layer on it that is named so now. */
async function halfDone(): Promise<{ path: string; store: LayerStore; old: Image; young: Image }> {
  const path = join(temporary(), 'store');
  const first = await LayerStore.open(path);
  const old = await first.createImage({ layers: [await first.import(tarOf({ base: 'b' }))], name: 'n' });
  await first[Symbol.asyncDispose]();
  expect(recent(path)).toEqual([]);
  const store = await opened(path);
  const top = await store.import(tarOf({ top: 't'.repeat(5000) }), { parent: old.layers[0] as never });
  return { path, store, old, young: await store.createImage({ layers: [...old.layers, top], name: 'n' }) };
}

test('is used at once, by whoever opens the store, and is on the disk when that is disposed of', async () => {
  const { path, store, young } = await halfDone();
  expect(recent(path)).toEqual(['tars', 'chains', 'images', 'names']);
  const other = await opened(path);
  expect([(await other.image('n')).digest, digests((await other.image('n')).layers)]).toEqual([young.digest, digests(young.layers)]);
  expect(await other.verify()).toMatchObject({ ok: true, problems: [] });
  await store[Symbol.asyncDispose]();
  expect(recent(path)).toEqual([]);
  expect((await other.image('n')).digest).toBe(young.digest);
  expect(await other.verify()).toMatchObject({ ok: true, problems: [] });
});

test('is brought to the disk in the background', async () => {
  const { path } = await halfDone();
  vi.runOnlyPendingTimers();
  vi.useRealTimers();
  await settled(() => recent(path), { what: 'records that are not on the disk' });
});

test('goes when the machine has been started since, and what was there before stays', async () => {
  const { path, old, young } = await halfDone();
  const top = young.layers[1] as { digest: string; path: string };
  // What a loss of power leaves of it.
  truncateSync(join(top.path, 'top'));
  startAgain(path);
  const store = await opened(path);
  expect((await store.image('n')).digest).toBe(old.digest);
  expect(digests(await all(store.layers()))).toEqual(digests(old.layers));
  expect([existsSync(top.path), readdirSync(join(path, 'recent')), readdirSync(join(path, 'temp'))]).toEqual([false, [boot], []]);
  expect(await told(store.image(young.digest))).toMatch(/^ERR_CLOISTER_NOT_FOUND: there is no image/);
  expect(await store.verify()).toMatchObject({ ok: true, problems: [] });
  // The same once more.
  const again = await store.import(tarOf({ top: 't'.repeat(5000) }));
  expect([again.digest, statSync(join(again.path, 'top')).size]).toEqual([top.digest, 5000]);
  expect(await store.verify()).toMatchObject({ ok: true, problems: [] });
});

test('half a blob that nothing refers to is not taken for the whole one', async () => {
  const path = join(temporary(), 'store');
  const zipped = gzipSync(readFileSync(tarOf({ a: 'a'.repeat(10_000) })));
  const file = join(temporary(), 'layer.tar.gz');
  writeFileSync(file, zipped);
  const first = await LayerStore.open(path);
  const layer = await first.import(file);
  const blob = join(path, 'blobs/sha256', hex(sha256(zipped)));
  truncateSync(blob, 100);
  startAgain(path);
  const store = await opened(path);
  expect(existsSync(blob)).toBe(false);
  expect((await store.import(file)).digest).toBe(layer.digest);
  expect(readFileSync(blob).equals(zipped)).toBe(true);
  await first[Symbol.asyncDispose]().catch(() => {});
});

test('a layer whose directory has been lost is not believed by its old record', async () => {
  const path = join(temporary(), 'store');
  const store = await LayerStore.open(path);
  const layer = await store.import(tarOf({ a: 'a' }));
  await store[Symbol.asyncDispose]();
  renameSync(join(path, 'layers', hex(layer.digest)), join(temporary(), 'lost'));
  const next = await opened(path);
  await next.import(tarOf({ a: 'a' }));
  expect(recent(path)).toEqual(['tars']);
  startAgain(path);
  const last = await opened(path);
  expect(existsSync(layer.path)).toBe(false);
  expect((await last.verify()).problems.map(({ problem }) => problem)).toEqual([`its layer ${layer.digest} is not there`]);
});

test('of a process that has died is brought to the disk by the next one', async () => {
  const path = join(temporary(), 'store');
  const script = `
    const { LayerStore } = await import('cloister');
    const store = await LayerStore.open(process.argv[1]);
    await store.import(process.argv[2]);
    process.kill(process.pid, 'SIGKILL');
  `;
  expect(await startChild(script, { args: [path, tarOf({ a: 'a' })], deadline: 60_000 }).ended).toMatchObject({ signal: 'SIGKILL', stderr: '' });
  expect(recent(path)).toEqual(['tars', 'chains']);
  const store = await LayerStore.open(path);
  expect(await all(store.layers())).toHaveLength(1);
  await store[Symbol.asyncDispose]();
  expect(recent(path)).toEqual([]);
});

test('gc() and remove() act on what is on the disk', async () => {
  const { path, store, young } = await halfDone();
  await store.gc();
  expect(recent(path)).toEqual([]);
  const name = (await store.createImage({ layers: [...young.layers], name: 'other' })).name;
  expect([name, recent(path)]).toEqual(['other', ['names']]);
  await store.remove(await store.image('n'));
  expect(recent(path)).toEqual([]);
  expect((await all(store.images())).map((image) => image.name).sort()).toEqual(['other', undefined]);
  expect(await store.verify()).toMatchObject({ ok: true, problems: [] });
});

test('a disk that has refused is told of, each time, and nothing is believed any more', async () => {
  const { path, store } = await halfDone();
  writeFileSync(join(path, 'recent', boot, 'failed'), 'EIO: syncfs /: i/o error');
  const expected = /^ERR_CLOISTER_STORE: what has been put into .* could not be written to the disk: EIO: syncfs \/: i\/o error$/;
  expect(await told(store.gc())).toMatch(expected);
  expect(await told(store[Symbol.asyncDispose]())).toMatch(expected);
  expect(recent(path)).not.toEqual([]);
});

test('a store that older versions have made is taken as it is', async () => {
  const { path, store, young } = await halfDone();
  await store[Symbol.asyncDispose]();
  renameSync(join(path, 'recent'), join(temporary(), 'recent'));
  const again = await opened(path);
  expect((await again.image('n')).digest).toBe(young.digest);
  expect(await again.verify()).toMatchObject({ ok: true, problems: [] });
});
