// Files that are mostly holes: one system call makes 4 PiB, and nobody can write, hash or compare as many zeros.
import { execFileSync } from 'node:child_process';
import { closeSync, createWriteStream, ftruncateSync, mkdirSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { OverlayRootfs, runIsolated } from 'cloister';
import { expect, onTestFinished, test } from 'vitest';
import { dataRanges } from '../../dist/tree/data-ranges.js';
import { extract, pack } from '../../dist/tree/tree.js';
import { all, digestOfFile, newStore, told } from '../helpers/images.js';
import { testNeeding } from '../helpers/lane.js';
import { ask } from '../helpers/probe.js';
import { smallRoot, temporary } from './trees.js';

const [page, block, mib, pib] = [2 ** 12, 2 ** 16, 2 ** 20, 2 ** 50];

/** ext4 has files of 16 TiB at the most. */
function onTmpfs(): string {
  const directory = mkdtempSync('/dev/shm/cloister-test-');
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** What is no hole: where, and what. */
type Parts = readonly (readonly [at: number, text: string])[];

function sparseFile(path: string, size: number, parts: Parts): string {
  const file = openSync(path, 'w');
  ftruncateSync(file, size);
  for (const [at, text] of parts) writeSync(file, text, at);
  closeSync(file);
  return path;
}

/** What there is at those places. */
function readParts(path: string, parts: Parts): Parts {
  const file = openSync(path, 'r');
  const read = (at: number, length: number): string => {
    const bytes = Buffer.alloc(length);
    return bytes.toString('latin1', 0, readSync(file, bytes, 0, length, at));
  };
  const found = parts.map(([at, text]) => [at, read(at, text.length)] as const);
  closeSync(file);
  return found;
}

function expectFile(path: string, size: number, parts: Parts): void {
  expect([statSync(path).size, statSync(path).blocks <= (parts.length * 2 * block) / 512]).toEqual([size, true]);
  expect(readParts(path, parts)).toEqual(parts);
}

/** By a program of the host's, inside. */
async function writeInside(rootfs: OverlayRootfs, script: string): Promise<void> {
  const { exitCode, stderr } = await runIsolated('/bin/sh', ['-ec', script], { rootfs });
  expect([exitCode, stderr]).toEqual([0, '']);
}

async function tarOfDiff(rootfs: OverlayRootfs): Promise<string> {
  const tar = join(temporary(), 'diff.tar');
  await pipeline(rootfs.diff(), createWriteStream(tar));
  return tar;
}

async function packed(directory: string): Promise<string> {
  const tar = join(temporary(), 'packed.tar');
  await pipeline(pack(directory), createWriteStream(tar));
  return tar;
}

testNeeding(['root', 'overlay'])('4 PiB of nothing cost nothing: changes(), diff(), fork(), commit(), verify(), an image', async () => {
  const parts: Parts = [
    [0, 'start'],
    [2 * pib + 12_345, 'middle'],
    [4 * pib - 3, 'end'],
  ];
  const store = await newStore(join(onTmpfs(), 'store'));
  await using root = await OverlayRootfs.host();
  const put = parts.map(([at, text]) => `printf ${text} | dd of=/opt/f conv=notrunc oflag=seek_bytes seek=${at} status=none`);
  await writeInside(root, ['truncate -s 4P /opt/f', ...put].join('; '));
  expect((await all(root.changes())).map(({ kind, path }) => [kind, path])).toContainEqual(['added', '/opt/f']);
  const tar = await tarOfDiff(root);
  expect(statSync(tar).size).toBeLessThan(mib);

  const layer = await root.commit(store);
  expect(layer.digest).toBe(digestOfFile(tar));
  expectFile(join(layer.path, 'opt/f'), 4 * pib, parts);
  expect((await store.import(tar)).digest).toBe(layer.digest);
  expect(digestOfFile(await packed(layer.path))).toBe(layer.digest);
  const image = await store.createImage({ layers: [layer], name: 'holes' });
  await store.exportImage(image, join(temporary(), 'layout'), { format: 'oci-layout' });
  await expect(store.import(tar, { sizeLimit: pib })).rejects.toThrow('opt/f: with it the layer has more than');
  expect(await store.verify()).toMatchObject({ ok: true, problems: [] });

  await using fork = await root.fork();
  const target = temporary();
  await using _ = await fork.mount(target);
  expectFile(join(target, 'opt/f'), 4 * pib, parts);
});

testNeeding(['root', 'overlay'])('a size that no number here can tell is refused', async () => {
  await using root = await OverlayRootfs.host();
  await writeInside(root, 'truncate -s 7E /opt/f');
  for (const work of [all(root.diff()), root.fork()])
    await expect(work).rejects.toMatchObject({ code: 'ERR_CLOISTER_LAYER', message: 'not taken as a layer: /opt/f: it has more than 8 PiB' });
});

testNeeding(['overlay'])('what is a hole in both is not compared', async () => {
  const base = smallRoot();
  sparseFile(join(base, 'f'), 2 ** 43, [[2 ** 42, 'x']]);
  await using rootfs = await OverlayRootfs.create({ layers: [base] });
  // Opened for writing, and so copied up; the same size and the same time.
  expect(await ask([['open', '/f', 'rw']], { rootfs })).toMatchObject([{ errno: null }]);
  expect((await all(rootfs.changes())).filter(({ path }) => path === '/f')).toEqual([]);
});

/** What other programs make of it. */
const readers: Record<string, (tar: string, target: string) => void> = {
  tar: (tar, target) => execFileSync('tar', ['-xf', tar, '-C', target]),
  python3: (tar, target) => execFileSync('python3', ['-c', 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])', tar, target]),
};

const shapes: Record<string, { readonly size: number; readonly parts: Parts }> = {
  'a hole at the end': { size: 64 * mib, parts: [[0, 'x']] },
  'a hole at the start': { size: 64 * mib + 1, parts: [[64 * mib, 'x']] },
  'data in between': {
    size: 64 * mib - 7,
    parts: [
      [20 * mib, 'ab'],
      [40 * mib - 1, 'cd'],
    ],
  },
  'nothing else': { size: 3 * mib + 5, parts: [] },
  [`${'long/'.repeat(30)}name`]: { size: 2 * mib, parts: [[mib, 'x']] },
};

/** A directory with all of them, and the names that they have there. */
function allShapes(directory: string): string[] {
  return Object.entries(shapes).map(([name, { size, parts }]) => {
    mkdirSync(join(directory, name, '..'), { recursive: true });
    sparseFile(join(directory, name), size, parts);
    return name;
  });
}

for (const [program, unpack] of Object.entries(readers)) {
  testNeeding(['root', `program:${program as 'tar'}`])(`${program} makes the same files of it, and the same holes`, async () => {
    const directory = temporary();
    const names = allShapes(directory);
    const target = temporary();
    unpack(await packed(directory), target);
    for (const name of names) expectFile(join(target, name), shapes[name]?.size as number, shapes[name]?.parts as Parts);
  });
}

testNeeding(['root', 'program:umoci'])('umoci makes the same files of it', async () => {
  const directory = temporary();
  const names = allShapes(directory);
  const store = await newStore();
  const layer = await store.import(await packed(directory));
  const place = temporary();
  await store.exportImage(await store.createImage({ layers: [layer], name: 'holes' }), join(place, 'layout'), { format: 'oci-layout' });
  execFileSync('umoci', ['unpack', '--image', `${join(place, 'layout')}:holes`, join(place, 'bundle')], { stdio: 'pipe' });
  for (const name of names) execFileSync('cmp', [join(directory, name), join(place, 'bundle/rootfs', name)]);
});

testNeeding(['root'])('the same content makes the same bytes: holes or zeros, before and after, on any file system', async () => {
  const [there, here] = [temporary(), onTmpfs()];
  const content = Buffer.alloc(8 * mib);
  for (const [at, text] of [
    [3, 'x'],
    [block - 1, 'yy'],
    [5 * mib + 77, 'z'],
  ] as const)
    content.write(text, at);
  const write = (directory: string, name: string, from: number): void => {
    const file = openSync(join(directory, name), 'w');
    ftruncateSync(file, content.length);
    // In all: zeros that are written. Else only pieces of a size that no file system allocates by.
    for (let at = 0; at < content.length; at += from) {
      const piece = content.subarray(at, at + from);
      if (from === content.length || piece.some((byte) => byte !== 0)) writeSync(file, piece, 0, piece.length, at);
    }
    closeSync(file);
    execFileSync('touch', ['-d', '@1700000000', join(directory, name), directory]);
  };
  const digests = new Set<string>();
  for (const directory of [there, here]) {
    execFileSync('chmod', ['755', directory]);
    for (const from of [content.length, 100, 10_000]) {
      write(directory, 'f', from);
      const tar = await packed(directory);
      expect(statSync(tar).size).toBeLessThan(mib);
      digests.add(digestOfFile(tar));
      for (const target of [temporary(), onTmpfs()]) {
        await extract(tar, target);
        expect(readFileSync(join(target, 'f')).equals(content)).toBe(true);
        digests.add(digestOfFile(await packed(target)));
      }
    }
  }
  expect([...digests]).toHaveLength(1);
});

function rangesOf(path: string, most?: number): ReturnType<typeof dataRanges> {
  const file = openSync(path, 'r');
  try {
    return dataRanges(file, statSync(path).size, Buffer.from('f'), most);
  } finally {
    closeSync(file);
  }
}

test('less than 1 MiB of zeros is written', () => {
  const path = join(temporary(), 'f');
  expect(rangesOf(sparseFile(path, mib - 1, []))).toBeUndefined();
  expect(rangesOf(sparseFile(path, mib, []))).toEqual([]);
  expect(rangesOf(sparseFile(path, mib, [[0, 'x']]))).toBeUndefined();
  expect(rangesOf(sparseFile(path, mib + block, [[mib / 2, 'x']]))).toEqual([{ offset: mib / 2, length: block }]);
  // Zeros around it that are no whole block.
  expect(rangesOf(sparseFile(path, mib + block, [[mib / 2 - 1, 'xx']]))).toBeUndefined();
});

test('more ranges than a map can have: larger ones, unless that would be another bomb', async () => {
  const path = join(temporary(), 'f');
  const most = 100;
  const file = (count: number, apart: number, text: string): string =>
    sparseFile(
      path,
      count * apart + 2 * mib,
      Array.from({ length: count }, (_, i) => [i * apart, text]),
    );
  expect(rangesOf(file(most, 2 * block, 'x'), most)).toHaveLength(most);
  // A sixteenth of it is data.
  expect(rangesOf(file(most + 1, 2 * block, 'x'.repeat(2 * page)), most)).toEqual([{ offset: 0, length: (most + 1) * 2 * block }]);
  expect(rangesOf(file(most, 2 ** 36, 'x'), most)).toHaveLength(most);
  const refused = Promise.resolve().then(() => rangesOf(file(most + 1, 2 ** 36, 'x'), most));
  expect(await told(refused)).toMatchInlineSnapshot(
    `"ERR_CLOISTER_LAYER: not taken as a layer: /f: it is sparse, and its data lie in more than 100 places that are far apart"`,
  );
});
