// Rows 8 to 10: starts in roots of many layers, changes over bases of many files, imports. All files are made here, and are taken away again.

import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { LayerStore, OverlayRootfs } from 'cloister';
import { contest, full, sample } from './contest.mjs';

const micros = async (work) => {
  const begin = performance.now();
  await work();
  return (performance.now() - begin) * 1e3;
};

function tarOf(directory, target) {
  execFileSync('tar', ['--sort=name', '--numeric-owner', '-C', directory, '-cf', target, '.']);
  return target;
}

function tree(directory, files, bytes) {
  const content = Buffer.alloc(bytes);
  for (let n = 0; n < files; n++) {
    const folder = join(directory, `d${Math.floor(n / 100)}`);
    if (n % 100 === 0) mkdirSync(folder, { recursive: true });
    // Neither zeros, which would be holes, nor the same in each.
    content.fill(`${n} of ${files}, `);
    writeFileSync(join(folder, `f${n}`), content);
  }
  return directory;
}

export async function layers(report, { program, rounds, rows, quick }) {
  const place = mkdtempSync(join(tmpdir(), 'cloister-bench-'));
  try {
    if (rows.has('8')) await starts(report, place, program, rounds, quick);
    if (rows.has('9')) await changes(report, place, rounds, quick);
    if (rows.has('10')) await imports(report, place, quick);
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}

/** A program in an image: all that is done for one start, as the image is made a root for each. And in one root that is kept. */
async function starts(report, place, program, rounds, quick) {
  // In memory: to write 500 layers so that they survive a loss of power is not what is measured.
  const memory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : place, 'cloister-bench-'));
  const store = await LayerStore.open(join(memory, 'store'));
  try {
    const files = join(place, 'layer');
    mkdirSync(join(files, 'bin'), { recursive: true });
    copyFileSync(program, join(files, 'bin/true'));
    const counts = quick ? [1, 10, 100] : [1, 10, 100, 500];
    const goals = { 10: 1.1, 100: 1.5, 500: 3 };
    const made = [await store.import(tarOf(files, join(place, 'layer.tar')))];
    for (let n = 1; n < counts.at(-1); n++) {
      writeFileSync(join(files, 'n'), String(n));
      made.push(await store.import(tarOf(files, join(place, 'layer.tar'))));
    }
    const images = {};
    const roots = {};
    for (const count of counts) {
      const line = made.slice(0, count);
      images[count] = full('/bin/true', { rootfs: await store.createImage({ layers: line }), stdio: 'ignore' });
      roots[count] = await OverlayRootfs.create({ layers: line });
    }
    const times = await contest(images, Math.ceil(rounds / 2), 'in a row');
    for (const count of counts.slice(1))
      report.compare(8, `an image of ${count} layers`, times[count], 'one layer', times[1], { goal: goals[count], condition: 'in a row' });
    const kept = await contest(
      Object.fromEntries(counts.map((count) => [count, full('/bin/true', { rootfs: roots[count], stdio: 'ignore' })])),
      Math.ceil(rounds / 2),
      'in a row',
    );
    for (const count of counts.slice(1)) report.compare(8, `a root of ${count}, kept`, kept[count], 'one layer', kept[1], { condition: 'in a row' });
    for (const root of Object.values(roots)) await root[Symbol.asyncDispose]();
  } finally {
    await store[Symbol.asyncDispose]();
    rmSync(memory, { recursive: true, force: true });
  }
}

async function changes(report, place, rounds, quick) {
  const contestants = {};
  const roots = [];
  for (const count of [1000, quick ? 10_000 : 100_000]) {
    const base = tree(join(place, `base${count}`), count, 1);
    // A hundred changes: files that are new, and files of the base that have others' contents.
    const upper = join(place, `upper${count}`);
    for (let n = 0; n < 10; n++) {
      mkdirSync(join(upper, `d${n}`), { recursive: true });
      for (let file = 0; file < 10; file++) writeFileSync(join(upper, `d${n}`, file % 2 ? `f${n * 100 + file}` : `new${file}`), 'changed');
    }
    const root = await OverlayRootfs.create({ layers: [base], upper, idMap: 'self' });
    roots.push(root);
    contestants[count] = () =>
      micros(async () => {
        let found = 0;
        for await (const _ of root.changes()) found++;
        if (found !== 100) throw new Error(`changes() of ${count} files told ${found}, not 100`);
      });
  }
  try {
    const times = await contest(contestants, Math.ceil(rounds / 2), 'in a row');
    const [small, large] = Object.keys(contestants);
    report.compare(9, `changes() over ${large} files`, times[large], `${small} files`, times[small], { goal: quick ? undefined : 1.1, condition: 'in a row' });
  } finally {
    for (const root of roots) await root[Symbol.asyncDispose]();
  }
}

/**
 * Each import is into a new store, and nothing is removed before the last one: ext4 gives no inode number again for some minutes after it was freed,
 * and looks at each of them whenever it makes a file (recently_deleted in fs/ext4/ialloc.c), which made both sides slower, by up to four times, and
 * not by the same. tar and an import both leave to the kernel what they have written, on a file system that was synced before. That
 * it is on the disk an import waits for when its store is disposed of, `tar` with `sync`: so there is a row of that, too.
 */
async function imports(report, place, quick) {
  const [files, bytes] = quick ? [500, 100_000] : [5000, 100_000];
  const plain = tarOf(tree(join(place, 'source'), files, bytes), join(place, 'big.tar'));
  const zipped = `${plain}.gz`;
  execFileSync('sh', ['-c', 'gzip -1 <"$1" >"$2"', 'sh', plain, zipped]);
  const small = tarOf(tree(join(place, 'small'), 1, 10), join(place, 'small.tar'));
  const megabytes = Math.round(statSync(plain).size / 1e6);
  const results = {};
  const timed = async (name, work) => {
    execFileSync('sync', ['-f', place]);
    if (!results[name]) results[name] = [];
    results[name].push(await micros(work));
  };
  const unpacked = async (name, script, source) => {
    const directory = mkdtempSync(join(place, 'tar-'));
    await timed(name, () => execFileSync('sh', ['-c', script, 'sh', directory, source]));
  };
  const imported = async (name, source, dispose, use = () => {}) => {
    const store = await LayerStore.open(mkdtempSync(join(place, 'store-')));
    let base;
    await timed(name, async () => {
      base = await store.import(source);
      if (dispose) await store[Symbol.asyncDispose]();
    });
    await use(store, base);
    await store[Symbol.asyncDispose]();
  };
  // Threads are to be started, and nothing of the JavaScript is compiled.
  const first = `import { LayerStore } from 'cloister';
    const [directory, source] = process.argv.slice(1);
    const store = await LayerStore.open(directory);
    const begin = performance.now();
    await store.import(source);
    console.log((performance.now() - begin) * 1e3);
    await store[Symbol.asyncDispose]();`;
  const importedFirst = (name) => {
    execFileSync('sync', ['-f', place]);
    const directory = mkdtempSync(join(place, 'store-'));
    const output = execFileSync(process.execPath, ['--input-type=module', '--eval', first, directory, plain], { cwd: import.meta.dirname, encoding: 'utf8' });
    results[name] = [...(results[name] ?? []), Number(output)];
  };
  // An image of the same base and a little more comes as a layout, as from a registry: the base is found to be there.
  const second = async (store, base) => {
    const other = await LayerStore.open(mkdtempSync(join(place, 'other-')));
    const layout = join(mkdtempSync(join(place, 'layout-')), 'image');
    const line = [await other.import(plain), await other.import(small)];
    await other.exportImage(await other.createImage({ layers: line }), layout);
    await other[Symbol.asyncDispose]();
    if (base.digest !== line[0].digest) throw new Error('two imports of one tar are two layers');
    await timed('second', () => store.importImage(layout));
  };
  for (let round = 0; round < (quick ? 2 : 5); round++) {
    // All find it in the page cache.
    readFileSync(plain);
    await unpacked('tar', 'tar -C "$1" -xf "$2"', plain);
    await imported('import', plain, false, second);
    importedFirst('first import');
    await unpacked('tar, sync', 'tar -C "$1" -xf "$2" && sync -f "$1"', plain);
    await imported('import, dispose', plain, true);
    readFileSync(zipped);
    await unpacked('tar gzip', 'tar -C "$1" -xzf "$2"', zipped);
    await imported('import gzip', zipped, false);
  }
  const times = Object.fromEntries(Object.entries(results).map(([name, list]) => [name, sample(list)]));
  const condition = `${megabytes} MB`;
  const goal = quick ? undefined : 1.2;
  report.compare(10, 'import, uncompressed', times.import, 'tar -x', times.tar, { goal, condition });
  report.compare(10, 'import, the first of a process', times['first import'], 'tar -x', times.tar, { condition });
  report.compare(10, 'import, store disposed of', times['import, dispose'], 'tar -x; sync', times['tar, sync'], { condition });
  report.compare(10, 'import, gzip', times['import gzip'], 'tar -xz', times['tar gzip'], { goal, condition });
  report.compare(10, 'a second image on it', times.second, 'the first', times.import, { goal: quick ? undefined : 0.02, condition });
}
