/** changes() is exactly the difference, and the base with diff() on it is what was there: for histories at random. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { OverlayRootfs } from 'cloister';
import { expect } from 'vitest';
import { native } from '../../dist/native.js';
import { lookBelow } from '../../dist/rootfs/below.js';
import type { Made } from '../../dist/rootfs/make-root.js';
import { orderOf } from '../../dist/rootfs/writable-layer.js';
import { run as listChanges } from '../../dist/tree/list-changes.js';
import { run as treeTask } from '../../dist/tree/tree-tasks.js';
import { run as writeDiff } from '../../dist/tree/write-diff.js';
import type { Native } from '../../types/native.js';
import { testNeeding } from '../helpers/lane.js';
import { Random, seeds } from '../helpers/random.js';
import { differencesOf, linkedPairs, type Snapshot, snapshot } from '../helpers/snapshot.js';
import { type Ability, live } from './histories.js';
import { temporary } from './trees.js';

const isRoot = process.geteuid?.() === 0;
const count = Number(process.env['CLOISTER_HISTORIES'] ?? 200);
const prefix = isRoot ? 'trusted.overlay.' : 'user.overlay.';
const shift = isRoot ? 1_000_000 : 0;
const idMap = isRoot ? { uids: [{ inside: 0, outside: shift, count: 65536 }], gids: [{ inside: 0, outside: shift, count: 65536 }] } : ('self' as const);
const [uid, gid] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];

// Inside ids: of a layer on disk, and of what is seen in the overlay.
const onDisk = isRoot ? {} : { uid: (id: number) => (id === uid ? 0 : id), gid: (id: number) => (id === gid ? 0 : id) };
const inside = (id: number): number => (id >= shift && id < shift + 65536 ? id - shift : 65534);
const inOverlay = isRoot ? { uid: inside, gid: inside } : onDisk;

const calls = (): Native['files'] => native().files;
const ability = (offset: number): Ability => ({
  // Not 65534: so ids are told that are not mapped, as those of what is made here, outside, are.
  owners: isRoot ? [0, 1, 1000, 65533].map((id) => id + offset) : [uid],
  devices: isRoot,
  setAttribute: (path, name, value) => {
    const fd = openSync(path, 'r');
    const result = calls().setAttribute(fd, Buffer.from(name), value);
    closeSync(fd);
    if (result < 0) throw Object.assign(new Error('setxattr'), { code: String(result) });
  },
  makeNode: (path, kind) => {
    const slash = path.lastIndexOf(0x2f);
    const fd = openSync(path.subarray(0, slash), 'r');
    const result = calls().makeNode(
      fd,
      path.subarray(slash + 1),
      (kind === 'fifo' ? 0o010000 : 0o020000) | 0o640,
      kind === 'fifo' ? 0 : 5,
      kind === 'fifo' ? 0 : 1,
    );
    closeSync(fd);
    if (result < 0) throw Object.assign(new Error('mknod'), { code: String(result) });
  },
});

/** What a spawn does with a root, and the types do not tell. */
async function use(root: OverlayRootfs): Promise<Made & { release(): void }> {
  const { ids } = root as unknown as { ids: unknown };
  return await (root as unknown as { use(ids: unknown): Promise<Made & { release(): void }> }).use(ids);
}

/** What changes() is to say. */
function expectedChanges(before: Snapshot, after: Snapshot): string[] {
  const lines: string[] = [];
  const same = (path: string): boolean => {
    const [a, b] = [before.get(path), after.get(path)];
    const plain = (node: typeof a): string => JSON.stringify({ ...node, inode: 0, mtime: node?.type === 'directory' ? 0 : String(node?.mtime) });
    return plain(a) === plain(b);
  };
  for (const [path, node] of after) {
    if (path === '') continue;
    if (!before.has(path)) lines.push(`added ${node.type} ${path}`);
    else if (!same(path)) lines.push(`modified ${node.type} ${path}`);
  }
  for (const [path, node] of before) {
    // With its directory, or in place of it, all in it went.
    const above = path.slice(0, Math.max(path.lastIndexOf('/'), 0));
    if (!after.has(path) && after.get(above)?.type === 'directory') lines.push(`deleted ${node.type} ${path}`);
  }
  return lines.sort();
}

/** Runs a task here, with a file for its output. */
function output(directory: string, name: string, task: (fd: number) => void): Buffer {
  const path = join(directory, name);
  const fd = openSync(path, 'w+');
  try {
    task(fd);
  } finally {
    closeSync(fd);
  }
  return readFileSync(path);
}

testNeeding(['overlay', 'program:getfattr'])(
  `${count} histories`,
  async () => {
    const scratch = temporary({ 'base/': '', 'layer/': '' });
    const base = join(scratch, 'base');
    const told: string[] = [];
    await using root = await OverlayRootfs.create({ layers: [base], idMap });
    for (const seed of seeds(count)) {
      const random = new Random(seed);
      await root.reset();
      for (const name of ['base', 'layer']) inDirectory(join(scratch, name), (root) => treeTask({ kind: 'empty' }, descriptors(root)));
      const made = live(base, random, ability(0), 40);
      // Made anew, so that nothing of what was there before is remembered.
      await root.reset();
      const before = snapshot(base, { ...onDisk, attributes: true });
      const used = await use(root);
      const below = await lookBelow(used);
      try {
        const merged = `/proc/self/fd/${used.mounts[0]?.fd}`;
        const done = live(merged, random, ability(shift), 1 + random.below(30));
        const after = snapshot(merged, { ...inOverlay, attributes: true });
        const story = `CLOISTER_SEED=${seed}\nbase: ${made.join(', ')}\nthen: ${done.join(', ')}\n`;
        const { parts, lent } = orderOf(used, below);
        const lines = output(scratch, 'changes', (fd) => listChanges({ prefix, parts }, { result: -1, input: undefined, output: fd, lent })).toString();
        const changes = lines
          .split('\n')
          .filter(Boolean)
          .map((line) => (JSON.parse(line) as string[]).join(' '));
        expect(changes.sort(), `changes: ${story}`).toEqual(expectedChanges(before, after));

        const map = isRoot ? used.ids.map : undefined;
        const diff = output(scratch, 'diff', (fd) => writeDiff({ prefix, parts, map, whiteouts: 'names' }, { result: -1, input: undefined, output: fd, lent }));
        const layer = join(scratch, 'layer');
        extractHere(join(scratch, 'diff'), layer);
        const packed = output(scratch, 'packed', (fd) =>
          inDirectory(layer, (root) => treeTask({ kind: 'pack', prefix }, { ...descriptors(root), output: fd })),
        );
        expect(packed.equals(diff), `pack(extract(diff)) has the same bytes: ${story}`).toBe(true);

        const both = await OverlayRootfs.create({ layers: [base, layer], idMap });
        const again = await use(both);
        const applied = snapshot(`/proc/self/fd/${again.mounts[0]?.fd}`, { ...inOverlay, attributes: true });
        // The root's own time is that of when it was made; sockets there are none.
        const difference = differencesOf(after, applied, (path) => (path === '' ? { mtime: 0n } : {}));
        expect(difference, `base + diff: ${story}`).toEqual([]);
        // A file that was only opened for writing has left its other names in the overlay, but is no difference (overlayfs.rst, "index").
        // A file that was copied up before it got another name has, without an index, its old number by the old name and a new one by the new
        // name (ovl_map_dev_ino): what is one file there is told by the upper directory.
        const upper = snapshot(`/proc/self/fd/${used.base}/upper0`, onDisk);
        const [there, wanted, old, written] = [applied, after, before, upper].map(linkedPairs) as [Set<string>, Set<string>, Set<string>, Set<string>];
        // Of two names of a file of the base one may have gone elsewhere with its directory: a layer can only link what is in it.
        const number = (tree: Snapshot, path: string): string | undefined => tree.get(path)?.inode.split(':')[1];
        const stayed = (pair: string): boolean =>
          pair.split(' = ').some((path) => !lines.includes(JSON.stringify(path)) && number(before, path) === number(after, path));
        expect(
          [...wanted].filter((pair) => !there.has(pair) && !stayed(pair)),
          `hard links that are lost: ${story}`,
        ).toEqual([]);
        expect(
          [...there].filter((pair) => !wanted.has(pair) && !old.has(pair) && !written.has(pair)),
          `hard links that nobody made: ${story}`,
        ).toEqual([]);
        again.release();
        await both[Symbol.asyncDispose]();
        told.push(...done);
      } finally {
        native().close(below);
        used.release();
      }
    }
    // Each kind of step has been made at all.
    if (told.length > 2000) expect(new Set(told).size).toBeGreaterThan(isRoot ? 22 : 20);
  },
  600_000,
);

function inDirectory(path: string, task: (root: number) => unknown): void {
  const root = native().openFile(path);
  try {
    task(root);
  } finally {
    native().close(root);
  }
}

const descriptors = (root: number) => ({ result: -1, input: undefined, output: undefined, lent: [root] });

function extractHere(tar: string, directory: string): void {
  const input = openSync(tar, 'r');
  const options = { sizeLimit: 2 ** 30, entryLimit: 10_000, sync: false, keepOwners: isRoot, prefix, whiteouts: 'names' } as const;
  inDirectory(directory, (root) => treeTask({ kind: 'extract', ...options }, { ...descriptors(root), input }));
  closeSync(input);
}
