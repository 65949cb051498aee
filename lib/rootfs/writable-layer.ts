import { Readable } from 'node:stream';
import { native } from '../native.js';
import * as k from '../plan/constants.js';
import type { ExtractOutcome, ExtractRequest } from '../tree/extract.js';
import { type ChangeLine, type ChangesRequest, changeOf } from '../tree/list-changes.js';
import type { PartOrder } from '../tree/part-order.js';
import { outputOf, startTask, type Task } from '../tree/task.js';
import { overlayPrefix } from '../tree/tree.js';
import type { TreeRequest } from '../tree/tree-tasks.js';
import type { DiffRequest } from '../tree/write-diff.js';
import type { Made } from './make-root.js';
import type { Owner } from './ordinary-owner.js';
import type { Change } from './types.js';

// Tasks on the writable layer of a root that has been made. Descriptors stay the root's, which is held meanwhile.

const moduleOf = (name: string): URL => new URL(`../tree/${name}.js`, import.meta.url);

/** Parts in the words of a task, and the descriptors that they are lent. `below` is that of lookBelow(). */
export function orderOf(made: Made, below: number): { parts: PartOrder[]; lent: number[] } {
  const lent = [made.base, below];
  const parts = made.parts.map(({ target, upper, root }): PartOrder => {
    const mount = made.owner || !made.driver.redirects ? undefined : made.mounts.find((candidate) => candidate.target === target);
    return { target: target.slice(1), base: 0, upper, below: 1, merged: mount && lent.push(mount.fd) - 1, byName: made.driver.marksByName, root };
  });
  return { parts, lent };
}

/** When it has resolved, nothing of the root is used any more. Changes are kept as the bytes that they came as, of which a million takes some 100 MB. */
export async function listChanges(made: Made, below: number): Promise<Iterable<Change>> {
  const { parts, lent } = orderOf(made, below);
  const request: ChangesRequest = { prefix: overlayPrefix(), parts };
  const task = startTask<void>({ module: moduleOf('list-changes'), request, lent, owner: made.owner, output: true });
  const chunks: Buffer[] = [];
  for await (const chunk of outputOf(task)) chunks.push(chunk);
  return changesIn(chunks);
}

function* changesIn(chunks: Buffer[]): Generator<Change, void, undefined> {
  let rest: Buffer = Buffer.alloc(0);
  for (let chunk = chunks.shift(); chunk; chunk = chunks.shift()) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const end = bytes.lastIndexOf(0x0a) + 1;
    rest = bytes.subarray(end);
    for (const line of bytes.toString('utf8', 0, end).split('\n')) if (line !== '') yield changeOf(JSON.parse(line) as ChangeLine);
  }
}

/** `as`: ids as the inside knows them, or as they are. */
export function startDiff(made: Made, below: number, as: 'inside' | 'outside', whiteouts: DiffRequest['whiteouts']): Task<void> {
  const { parts, lent } = orderOf(made, below);
  const map = made.owner || as === 'outside' ? undefined : made.ids.map;
  const request: DiffRequest = { prefix: overlayPrefix(), parts, map, whiteouts };
  return startTask<void>({ module: moduleOf('write-diff'), request, lent, owner: made.owner, output: true });
}

/** The writable layer as a layer of its own, in a directory that is empty. It can be a lower layer for other ids, where those are mapped by mounts. */
export async function copyLayer(made: Made, below: number, directory: number): Promise<void> {
  const diff = startDiff(made, below, made.ids.userns === undefined ? 'outside' : 'inside', 'devices');
  const request: ExtractRequest & { kind: 'extract' } = {
    kind: 'extract',
    sizeLimit: Number.MAX_SAFE_INTEGER,
    entryLimit: Number.MAX_SAFE_INTEGER,
    keepOwners: true,
    prefix: overlayPrefix(),
    whiteouts: 'devices',
  };
  const input = Readable.from(outputOf(diff), { objectMode: false });
  await startTask<ExtractOutcome>({ module: moduleOf('tree-tasks'), request, lent: [directory], owner: made.owner, input }).done;
}

/** All that is in a directory, by whoever may look into every part of it. */
export async function emptyDirectory(path: string, owner: Owner | undefined, flags = 0): Promise<void> {
  const fd = native().openFile(path, k.O_RDONLY | k.O_DIRECTORY | flags);
  if (fd < 0) return;
  try {
    const request: TreeRequest = { kind: 'empty' };
    await startTask<void>({ module: moduleOf('tree-tasks'), request, lent: [fd], owner }).done;
  } finally {
    native().close(fd);
  }
}
