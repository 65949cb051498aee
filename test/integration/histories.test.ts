/** changes() is exactly the difference, and the base with diff() on it is what was there: for histories at random, on each driver. */
import { chownSync, closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { OverlayRootfs } from 'cloister';
import { transformWithOxc } from 'vite';
import { expect } from 'vitest';
import { native } from '../../dist/native.js';
import { lookBelow } from '../../dist/rootfs/below.js';
import type { Made } from '../../dist/rootfs/make-root.js';
import { orderOf } from '../../dist/rootfs/writable-layer.js';
import { outputOf, startTask } from '../../dist/tree/task.js';
import { run as treeTask } from '../../dist/tree/tree-tasks.js';
import { repository } from '../helpers/fixtures.js';
import { type Ability as Needed, testNeeding } from '../helpers/lane.js';
import { Random, seeds } from '../helpers/random.js';
import { repeats } from '../helpers/repeats.js';
import { differencesOf, linkedPairs, type Snapshot, snapshot } from '../helpers/snapshot.js';
import { live } from './histories.js';
import { abilityOf, type InsideOutcome, type InsideRequest, into, run as runInside, snapshotOf, type View, viewOf } from './histories-inside.js';
import { temporary } from './trees.js';

const isRoot = process.geteuid?.() === 0;
const prefix = isRoot ? 'trusted.overlay.' : 'user.overlay.';
const shift = isRoot ? 1_000_000 : 0;
const idMap = isRoot ? { uids: [{ inside: 0, outside: shift, count: 65536 }], gids: [{ inside: 0, outside: shift, count: 65536 }] } : ('self' as const);
const [uid, gid] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];

/** Inside ids: of a layer on disk, and of what is seen in the root. */
const onDisk: View = { shift: 0, self: isRoot ? undefined : { uid, gid } };
const inRoot: View = isRoot ? { shift, self: undefined } : onDisk;
// Not 65534: so ids are told that are not mapped, as those of what is made here, outside, are.
const owners = isRoot ? [0, 1, 1000, 65533] : [uid];

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

/**
 * Names that fuse-overlayfs takes for one file's, and that are two files' on disk: one of them was copied up, and keeps the number of the file
 * it was (ORIGIN_XATTR in make_ovl_node), which has another name below. One of them answers for all (register_inode): docs/drivers.md.
 */
function takenForOne(seen: Snapshot, fileOf: (path: string) => string | undefined): ReadonlySet<string> {
  const files = new Map<string, Set<string | undefined>>();
  for (const [path, { inode }] of seen) files.set(inode, (files.get(inode) ?? new Set()).add(fileOf(path)));
  return new Set([...seen].filter(([, { inode }]) => (files.get(inode)?.size ?? 0) > 1).map(([path]) => path));
}

/** For a process in other namespaces, which is plain Node: these files as JavaScript. */
async function insideModule(): Promise<URL> {
  const folder = temporary();
  for (const name of ['integration/histories-inside', 'integration/histories', 'helpers/random', 'helpers/snapshot']) {
    const path = join(repository, 'test', `${name}.ts`);
    const { code } = await transformWithOxc(readFileSync(path, 'utf8'), path);
    const target = join(folder, `${name}.js`);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, code.replaceAll('../../dist/', pathToFileURL(join(repository, 'dist/')).href));
  }
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  return pathToFileURL(join(folder, 'integration/histories-inside.js'));
}

/** A mount of FUSE shows itself only to those who are in the user namespace that made it (fuse_allow_current_process). */
async function inside(module: URL | undefined, made: Made, lent: readonly number[], request: InsideRequest): Promise<InsideOutcome> {
  if (!module) return runInside(request, { lent });
  return await startTask<InsideOutcome>({ module, request, lent, owner: made.owner }).done;
}

function histories(driver: 'overlay' | 'aufs' | 'fuse-overlayfs', needed: readonly Needed[], count: number): void {
  testNeeding([...needed, 'program:getfattr'])(
    `${count} histories, ${driver}`,
    async () => {
      const module = driver === 'fuse-overlayfs' && !isRoot ? await insideModule() : undefined;
      const scratch = temporary({ 'base/': '', 'layer/': '', 'upper/': '' });
      const base = join(scratch, 'base');
      // Of FUSE the kernel remembers times of directories that are not so any more: it is mounted again, and what is there then has to be told.
      const upper = driver === 'fuse-overlayfs' ? join(scratch, 'upper') : undefined;
      if (upper && isRoot) chownSync(upper, shift, shift);
      const create = (): Promise<OverlayRootfs> => OverlayRootfs.create({ layers: [base], idMap, driver, ...(upper === undefined ? {} : { upper }) });
      const told: string[] = [];
      let root = await create();
      expect(root.driver).toBe(driver);
      if (upper) await root[Symbol.asyncDispose]();
      for (const seed of seeds(count)) {
        const random = new Random(seed);
        if (!upper) await root.reset();
        for (const name of ['base', 'layer', 'upper']) inDirectory(join(scratch, name), (root) => treeTask({ kind: 'empty' }, descriptors(root)));
        const made = live(base, random, abilityOf({ owners, devices: isRoot, shift: 0 }), 40);
        // Made anew, so that nothing of what was there before is remembered.
        if (upper) root = await create();
        else await root.reset();
        const before = snapshot(base, { ...viewOf(onDisk), attributes: true });
        let used = await use(root);
        const history: InsideRequest = { history: { seed, owners, devices: isRoot, shift }, tree: 0, view: inRoot };
        const { done } = await inside(module, used, [used.mounts[0]?.fd as number], history);
        if (upper) {
          used.release();
          await root[Symbol.asyncDispose]();
          root = await create();
          used = await use(root);
        }
        const below = await lookBelow(used);
        try {
          const { parts, lent } = orderOf(used, below.fd);
          const { after: seen } = await inside(module, used, [...lent, used.mounts[0]?.fd as number], {
            tree: lent.length,
            view: inRoot,
            diff: { parts, prefix, map: isRoot ? used.ids.map : undefined, directory: scratch },
          });
          const after = snapshotOf(seen);
          const inLayer = snapshot(`/proc/self/fd/${used.base}/${parts[0]?.upper}`, viewOf(onDisk));
          const blurred = upper ? takenForOne(after, (path) => (inLayer.get(path) ?? before.get(path))?.inode) : new Set<string>();
          const clear = (line: string): boolean => !blurred.has(line.replace(/^\S+ \S+ /, ''));
          const story = `CLOISTER_SEED=${seed}\nbase: ${made.join(', ')}\nthen: ${done.join(', ')}\n`;
          const lines = readFileSync(join(scratch, 'changes'), 'utf8');
          const changes = lines
            .split('\n')
            .filter(Boolean)
            .map((line) => (JSON.parse(line) as string[]).join(' '));
          expect(changes.filter(clear).sort(), `changes: ${story}`).toEqual(expectedChanges(before, after).filter(clear));

          const layer = join(scratch, 'layer');
          // By whoever the layer is made for: in its user namespace, or here.
          if (module) await extractThere(join(scratch, 'diff'), layer, used);
          else extractHere(join(scratch, 'diff'), layer);
          if (module) writeFileSync(join(scratch, 'packed'), await packedThere(layer, used));
          else into(join(scratch, 'packed'), (output) => inDirectory(layer, (root) => treeTask({ kind: 'pack', prefix }, { ...descriptors(root), output })));
          const [diff, packed] = ['diff', 'packed'].map((name) => readFileSync(join(scratch, name))) as [Buffer, Buffer];
          expect(packed.equals(diff), `pack(extract(diff)) has the same bytes: ${story}`).toBe(true);

          const both = await OverlayRootfs.create({ layers: [base, layer], idMap, driver });
          const again = await use(both);
          const applied = snapshotOf((await inside(module, again, [again.mounts[0]?.fd as number], { tree: 0, view: inRoot })).after);
          // The root's own time is that of when it was made; sockets there are none.
          const [clearAfter, clearApplied] = [after, applied].map((tree) => new Map([...tree].filter(([path]) => !blurred.has(path)))) as unknown as [
            Snapshot,
            Snapshot,
          ];
          const difference = differencesOf(clearAfter, clearApplied, (path) => (path === '' ? { mtime: 0n } : {}));
          expect(difference, `base + diff: ${story}`).toEqual([]);
          // A file that was only opened for writing has left its other names in the overlay, but is no difference (overlayfs.rst, "index").
          // A file that was copied up before it got another name has, without an index, its old number by the old name and a new one by the new
          // name (ovl_map_dev_ino): what is one file there is told by the upper directory.
          const [there, wanted, old, written] = [applied, after, before, inLayer].map(linkedPairs) as [Set<string>, Set<string>, Set<string>, Set<string>];
          // Of two names of a file of the base one may have gone elsewhere with its directory: a layer can only link what is in it.
          const number = (tree: Snapshot, path: string): string | undefined => tree.get(path)?.inode.split(':')[1];
          const stayed = (pair: string): boolean =>
            pair.split(' = ').some((path) => blurred.has(path)) ||
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
          await below.close();
          used.release();
          if (upper) await root[Symbol.asyncDispose]();
        }
      }
      await root[Symbol.asyncDispose]();
      // Each kind of step has been made at all.
      if (told.length > 2000) expect(new Set(told).size).toBeGreaterThan(isRoot ? 22 : 20);
    },
    Math.max(600_000, 10_000 * count),
  );
}

const times = (count: number): number => repeats(count, 'CLOISTER_HISTORIES');
histories('overlay', ['overlay'], times(200));
histories('aufs', ['root', 'aufs'], times(200));
// Each has several programs to start, and for an ordinary user as many processes of Node.
histories('fuse-overlayfs', ['user-namespaces', 'fuse', 'program:fuse-overlayfs'], times(isRoot ? 40 : 12));

function inDirectory(path: string, task: (root: number) => unknown): void {
  const root = native().openFile(path);
  try {
    task(root);
  } finally {
    native().close(root);
  }
}

const descriptors = (root: number) => ({ result: -1, input: undefined, output: undefined, lent: [root] });

const extraction = { kind: 'extract', sizeLimit: 2 ** 30, entryLimit: 10_000, keepOwners: isRoot, prefix, whiteouts: 'names' } as const;

function extractHere(tar: string, directory: string): void {
  const input = openSync(tar, 'r');
  inDirectory(directory, (root) => treeTask(extraction, { ...descriptors(root), input }));
  closeSync(input);
}

const treeModule = new URL('../../dist/tree/tree-tasks.js', import.meta.url);

async function extractThere(tar: string, directory: string, { owner }: Made): Promise<void> {
  const [input, root] = [native().openFile(tar), native().openFile(directory)];
  await startTask({ module: treeModule, request: extraction, lent: [root], owner, input }).done;
  for (const fd of [input, root]) native().close(fd);
}

async function packedThere(directory: string, { owner }: Made): Promise<Buffer> {
  const root = native().openFile(directory);
  const chunks: Buffer[] = [];
  for await (const chunk of outputOf(startTask({ module: treeModule, request: { kind: 'pack', prefix }, lent: [root], owner, output: true })))
    chunks.push(chunk);
  native().close(root);
  return Buffer.concat(chunks);
}
