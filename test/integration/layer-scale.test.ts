/** Many layers, many forks, much that was written. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { type Layer, type LayerStore, OverlayRootfs, runIsolated, spawnIsolated } from 'cloister';
import { expect, onTestFinished } from 'vitest';
import { newStore, rootTar, tarOf } from '../helpers/images.js';
import { testNeeding } from '../helpers/lane.js';
import { archive, file } from '../helpers/raw-tar.js';
import { patience, repeats } from '../helpers/repeats.js';
import { plant, smallRoot, temporary } from './trees.js';

const isRoot = process.geteuid?.() === 0;
const mountPoints = { 'dev/': '', 'proc/': '', 'sys/': '' };

const imported = (store: LayerStore, ...parts: Buffer[]): Promise<Layer> => store.import(Readable.from([archive(...parts)]));

const entriesOf = async (rootfs: OverlayRootfs, path = '/'): Promise<string[]> => {
  const { stdout } = await runIsolated('/bin/probe', ['ls', path], { rootfs });
  return JSON.parse(stdout.split('\n')[0] as string).entries;
};

testNeeding(['overlay'])(
  'a root of 500 layers starts, and tells what has changed; of one more, that there cannot be so many',
  async () => {
    // In memory, where there is that: to write 500 layers so that they survive a loss of power is not what is tried here. Root's layers are
    // idmapped, and a tmpfs can be that since 6.3.
    const inMemory = existsSync('/dev/shm') && !(isRoot && /^6\.[0-2]\./.test(release()));
    const place = mkdtempSync(join(inMemory ? '/dev/shm' : '/tmp', 'cloister-test-'));
    onTestFinished(() => rmSync(place, { recursive: true, force: true }));
    // An ordinary user's import is a process for each. The others are directories.
    const ofStore = isRoot ? repeats(499) : 1;
    const layers: (Layer | string)[] = [smallRoot(mountPoints)];
    for (let n = 1; n < 500 - ofStore; n++) {
      const layer = join(place, `layer${n}`);
      plant(layer, { last: `${n}` });
      layers.push(layer);
    }
    const store = await newStore(join(place, 'store'));
    // Each hides what the one before it has.
    for (let n = layers.length; n < 500; n++) layers.push(await imported(store, file(`l${n}`, `${n}`), file('last', `${n}`), file(`.wh.l${n - 1}`)));
    await using root = await OverlayRootfs.create({ layers });
    const { stdout } = await runIsolated('/bin/probe', ['ls', '/', '--', 'read', '/last', '--', 'create', '/made', 'x', '--', 'unlink', '/l499'], {
      rootfs: root,
    });
    expect(JSON.parse(stdout.split('\n')[0] as string).entries.filter((entry: string) => /^l\d/.test(entry))).toEqual(['l499']);
    expect(stdout).toContain('499');
    const told = [];
    for await (const { kind, path } of root.changes()) told.push(`${kind} ${path}`);
    expect(told).toEqual(['deleted /l499', 'added /made']);
    await expect(root.fork()).rejects.toThrowErrorMatchingInlineSnapshot(`
      [IsolationError: a root of 501 layers: overlayfs takes 500 at the most
        A fork has one layer more than the root that it is of. Put some layers together into one.]
    `);
  },
  120_000 * patience,
);

testNeeding(['overlay'])('a fork of a fork of a root that runs: each is by itself, and the three are a line of layers', async () => {
  const store = await newStore();
  const base = await store.import(rootTar({ from: 'base' }));
  await using root = await OverlayRootfs.create({ layers: [base] });
  const put = (rootfs: OverlayRootfs, name: string) => runIsolated('/bin/probe', ['create', `/${name}`, name], { rootfs });
  const running = spawnIsolated('/bin/probe', ['create', '/first', 'x', '--', 'sleep'], { rootfs: root });
  try {
    // An answer: it has made the file, and waits.
    await once(running.stdout as Readable, 'data');
    await using child = await root.fork();
    const second = spawnIsolated('/bin/probe', ['create', '/second', 'x', '--', 'sleep'], { rootfs: child });
    try {
      await once(second.stdout as Readable, 'data');
      await using grandchild = await child.fork();
      await put(root, 'only-root');
      await put(child, 'only-child');
      await put(grandchild, 'only-grandchild');
      const own = async (rootfs: OverlayRootfs) => (await entriesOf(rootfs)).filter((entry) => /^(first|second|only-.*|from)$/.test(entry)).sort();
      expect(await own(root)).toEqual(['first', 'from', 'only-root']);
      expect(await own(child)).toEqual(['first', 'from', 'only-child', 'second']);
      expect(await own(grandchild)).toEqual(['first', 'from', 'only-grandchild', 'second']);
      const top = await grandchild.commit(store);
      const line = [];
      for (let at: Layer | undefined = top; at; at = at.parent)
        line.push(['first', 'second', 'only-grandchild', 'from'].filter((name) => existsSync(join((at as Layer).path, name))).join());
      expect(line).toEqual(['only-grandchild', 'second', 'first', 'from']);
    } finally {
      await second[Symbol.asyncDispose]();
    }
  } finally {
    await running[Symbol.asyncDispose]();
  }
  expect(await store.verify()).toMatchObject({ ok: true });
});

testNeeding([])(
  'two images that share nine of ten layers use the disk of eleven',
  async () => {
    const used = (path: string): number => Number(execFileSync('du', ['-sB1', path], { encoding: 'utf8' }).split('\t')[0]);
    const tars = Array.from({ length: 11 }, (_, n) => tarOf({ [`file${n}`]: String(n).repeat(300_000), 'd/same': `${n}` }));
    const place = temporary();
    const both = await newStore(join(place, 'both'));
    const layers = [];
    for (const tar of tars) layers.push(await both.import(tar));
    await both.createImage({ layers: layers.slice(0, 10), name: 'one' });
    const [before, one] = [used(join(place, 'both')), used(join(place, 'both/layers'))];
    await both.createImage({ layers: [...layers.slice(0, 9), layers[10] as Layer], name: 'two' });
    expect(used(join(place, 'both/layers'))).toBe(one);
    // What is new: a node, a manifest, a configuration, a name, and the last layer's tar, compressed. 300,000 bytes of it were there.
    expect(used(join(place, 'both')) - before).toBeLessThan(60_000);
    await both.gc();
    const alone = [];
    for (const [n, tar] of tars.entries()) {
      const store = await newStore(join(place, `alone${n}`));
      await store.createImage({ layers: [await store.import(tar)] });
      alone.push(used(join(place, `alone${n}/layers`)) - statSync(join(place, `alone${n}/layers`)).blocks * 512);
    }
    const shared = used(join(place, 'both/layers')) - statSync(join(place, 'both/layers')).blocks * 512;
    expect(shared).toBe(alone.reduce((sum, size) => sum + size, 0));
  },
  120_000 * patience,
);

/** CLOISTER_DIFF_MB=2048 for the whole of it. */
const megabytes = repeats(192, 'CLOISTER_DIFF_MB');

testNeeding(['overlay'])(
  `diff() of ${megabytes} MB takes no more memory than of little`,
  async () => {
    const upper = join(temporary(), 'upper');
    execFileSync('mkdir', [upper]);
    const big = openSync(join(upper, 'big'), 'w');
    const piece = Buffer.alloc(2 ** 20);
    for (let n = 0; n < megabytes; n++) {
      piece.fill(`${n} `);
      writeSync(big, piece);
    }
    closeSync(big);
    await using root = await OverlayRootfs.create({ layers: [temporary({ base: 'x' })], upper });
    const rss = (): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]) / 1024;
    let [bytes, most, first] = [0, 0, 0];
    for await (const chunk of root.diff()) {
      bytes += (chunk as Buffer).length;
      // What the thread, the pipe and the stream take, they have by then.
      if (bytes > 2 ** 24) most = Math.max(most, rss());
      else first = rss();
    }
    expect(bytes).toBeGreaterThan(megabytes * 2 ** 20);
    expect(most - first).toBeLessThan(64);
  },
  300_000 * patience,
);
