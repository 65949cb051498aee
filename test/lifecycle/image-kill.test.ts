// Imports, commits and collections that are cut by SIGKILL: what was told to be there is there, nothing is half there, and what was left is taken
// away. Of the two processes that work on a store in each round one is killed before some call to the file system, the other at some moment.
// CLOISTER_KILLS=200 for more than 20 (8 as an ordinary user); CLOISTER_SEED=n repeats one round.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { LayerStore } from 'cloister';
import { expect } from 'vitest';
import { startChild } from '../helpers/harness.js';
import { all } from '../helpers/images.js';
import { testNeeding } from '../helpers/lane.js';
import { Random, seeds } from '../helpers/random.js';
import { archive, directory, file, symlink } from '../helpers/raw-tar.js';
import { patience, repeats } from '../helpers/repeats.js';
import { temporary } from '../integration/trees.js';

// An ordinary user's import takes a process for each layer.
const kills = repeats(process.geteuid?.() === 0 ? 20 : 8, 'CLOISTER_KILLS');

/** Works until it is killed. Tells what is there for good, and, before it does it, what will not be any more. */
const script = `
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
const [, place, mine, seed, call] = process.argv;
const killAt = Number(call);
let calls = 0;
// Where a library calls the file system is where it could be between two states.
for (const [module, names] of [
  [fs.promises, ['open', 'rename', 'unlink', 'rm', 'rmdir', 'mkdir', 'writeFile']],
  [fs, ['renameSync', 'openSync', 'readFileSync', 'readdirSync', 'existsSync']],
]) {
  for (const name of names) {
    const original = module[name];
    module[name] = function (...args) {
      if (++calls === killAt) process.kill(process.pid, 'SIGKILL');
      return original.apply(this, args);
    };
  }
}
const { LayerStore, OverlayRootfs } = await import('cloister');
syncBuiltinESMExports();
let state = Number(seed) >>> 0;
const below = (limit) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return (state >>> 8) % limit;
};
const tell = (line) => fs.writeSync(1, line + '\\n');
const layers = [];
const images = [];
const store = await LayerStore.open(place + '/store');
for (let n = 0; ; n++) {
  tell('begins ' + n);
  const name = mine + n;
  const keep = async (image) => {
    tell('has ' + name + ' ' + image.digest);
    images.push(image);
  };
  switch (below(8)) {
    case 0:
    case 1:
      layers.push(await store.import(place + '/tars/' + below(8), layers.length > 0 && below(2) ? { parent: layers[below(layers.length)] } : {}));
      break;
    case 2:
      if (layers.length > 0) await keep(await store.createImage({ layers: Array.from({ length: 1 + below(3) }, () => layers[below(layers.length)]), config: { Labels: { n: name } }, name }));
      break;
    case 3:
      await keep(await store.importImage(place + '/layout', { name }));
      break;
    case 4:
      await store.gc();
      // One's own imports do not count any more.
      layers.length = 0;
      break;
    case 5:
      if (images.length > 0) {
        const [image] = images.splice(below(images.length), 1);
        tell('drops ' + image.name);
        await store.remove(image);
      }
      break;
    case 6: {
      const upper = place + '/upper-' + name;
      fs.mkdirSync(upper);
      fs.writeFileSync(upper + '/made', name);
      const root = await OverlayRootfs.create({ layers: layers.length > 0 ? [layers.at(-1)] : [place + '/tars'], upper });
      layers.push(await root.commit(store));
      await root[Symbol.asyncDispose]();
      break;
    }
    default:
      for await (const image of store.images()) if (image.layers.length === 0) throw new Error('an image without layers');
  }
}
`;

async function prepared(): Promise<string> {
  const place = temporary();
  mkdirSync(join(place, 'tars'));
  for (let n = 0; n < 8; n++) {
    const tar = archive(directory('d'), file(`d/f${n}`, Buffer.alloc(n * 30_000, `${n}`)), symlink(`s${n}`, 'd'), file(`.wh.g${n}`));
    writeFileSync(join(place, 'tars', String(n)), n % 2 === 0 ? tar : gzipSync(tar));
  }
  const store = await LayerStore.open(join(place, 'other'));
  const layers = [await store.import(join(place, 'tars/0')), await store.import(join(place, 'tars/3'))];
  await store.exportImage(await store.createImage({ layers }), join(place, 'layout'));
  await store[Symbol.asyncDispose]();
  return place;
}

/** Files in the store, but for those that say what it is. */
function stored(place: string): string[] {
  const list = (kind: string): string[] => readdirSync(join(place, 'store', kind)).map((name) => `${kind}/${name}`);
  const recent = readdirSync(join(place, 'store/recent')).flatMap((boot) =>
    readdirSync(join(place, 'store/recent', boot)).map((kind) => `recent/${boot}/${kind}`),
  );
  return ['blobs/sha256', 'tars', 'layers', 'chains', 'images', 'partial', 'temp', ...recent].flatMap(list);
}

/** What the images that are there need, of what there was. */
async function needed(place: string, store: LayerStore, before: readonly string[]): Promise<string[]> {
  const found = new Set<string>();
  const hex = (digest: string): string => digest.slice('sha256:'.length);
  for (const image of await all(store.images())) {
    found.add(`images/${hex(image.digest)}`).add(`blobs/sha256/${hex(image.digest)}`);
    const manifest = JSON.parse(readFileSync(join(place, 'store/blobs/sha256', hex(image.digest)), 'utf8'));
    found.add(`blobs/sha256/${hex(manifest.config.digest)}`);
    // A layer that was here before, in another form, has not brought this one along.
    for (const { digest } of manifest.layers) if (before.includes(hex(digest))) found.add(`blobs/sha256/${hex(digest)}`);
    for (const { digest, chainId } of image.layers) {
      found
        .add(`layers/${hex(digest)}`)
        .add(`tars/${hex(digest)}`)
        .add(`chains/${hex(chainId)}`);
      const tar = hex(JSON.parse(readFileSync(join(place, 'store/tars', hex(digest)), 'utf8')).digest);
      // Else it is put together of the tree.
      if (!existsSync(join(place, 'store/layers', tar, 'recipe'))) found.add(`blobs/sha256/${tar}`);
    }
  }
  return [...found];
}

testNeeding(['overlay'])(
  `${kills} kills lose nothing and leave nothing half done`,
  async () => {
    const place = await prepared();
    const kept = new Map<string, string>();
    let operations = 0;
    for (const [round, seed] of seeds(Math.ceil(kills / 2)).entries()) {
      const random = new Random(seed);
      const told = `CLOISTER_SEED=${seed}`;
      const calls = 1 + random.below(random.pick([60, 300, 1000]));
      const children = [String(calls), '0'].map((killAt, index) =>
        startChild(script, { args: [place, `r${round}${'ab'[index]}`, String(random.below(2 ** 31)), killAt], deadline: 120_000 }),
      );
      const [first, second] = children as [ReturnType<typeof startChild>, ReturnType<typeof startChild>];
      await second.lines.until(`begins ${random.below(12)}`).catch(async (cause) => {
        throw new Error(`${told}: ${JSON.stringify(await second.ended)}`, { cause });
      });
      // Some moment of that; if the other one is still alive by then, its moment has come too.
      await new Promise((resolve) => setTimeout(resolve, random.below(60)));
      second.kill();
      first.kill();
      for (const child of children) {
        const { signal, stdout, stderr } = await child.ended;
        expect([told, signal, stderr]).toEqual([told, 'SIGKILL', '']);
        // The last line may be cut.
        for (const line of stdout.split('\n').slice(0, -1)) {
          const [verb, name = '', digest = ''] = line.split(' ');
          if (verb === 'has') kept.set(name, digest);
          if (verb === 'drops') kept.delete(name);
          if (verb === 'begins') operations++;
        }
      }
      const store = await LayerStore.open(join(place, 'store'));
      expect([told, readdirSync(join(place, 'store/temp'))]).toEqual([told, []]);
      expect([told, await store.verify()]).toEqual([told, { ok: true, checked: expect.any(Number), problems: [] }]);
      for (const [name, digest] of kept) expect([told, name, (await store.image(name)).digest]).toEqual([told, name, digest]);
      const blobs = readdirSync(join(place, 'store/blobs/sha256'));
      await store.gc();
      expect([told, stored(place).sort()]).toEqual([told, (await needed(place, store, blobs)).sort()]);
      expect([told, await store.verify()]).toEqual([told, { ok: true, checked: expect.any(Number), problems: [] }]);
      // So that the next rounds do not have more and more to verify.
      for (const image of await all(store.images())) if (random.below(3) > 0 && image.name !== undefined && kept.delete(image.name)) await store.remove(image);
      await store[Symbol.asyncDispose]();
    }
    if (kills >= 20 && process.env['CLOISTER_SEED'] === undefined) expect(operations).toBeGreaterThan(2 * kills);
  },
  Math.max(120_000, kills * 15_000) * patience,
);
