/** The part of a history that is done in the root: by this process, or by one in the user namespace that its mount belongs to. */
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { native } from '../../dist/native.js';
import { run as listChanges } from '../../dist/tree/list-changes.js';
import type { PartOrder } from '../../dist/tree/part-order.js';
import { run as writeDiff } from '../../dist/tree/write-diff.js';
import { Random } from '../helpers/random.js';
import { type Node, type Snapshot, type SnapshotOptions, snapshot } from '../helpers/snapshot.js';
import { type Ability, live } from './histories.js';

/** Owners as they are seen → as they are meant. */
export interface View {
  readonly shift: number;
  /** That this user is root inside. */
  readonly self: { readonly uid: number; readonly gid: number } | undefined;
}

export interface InsideRequest {
  /** Undefined: only looked at. */
  readonly history?: { readonly seed: number; readonly owners: readonly number[]; readonly devices: boolean; readonly shift: number };
  /** Which of the lent descriptors is the tree. */
  readonly tree: number;
  readonly view: View;
  readonly diff?: {
    readonly parts: readonly PartOrder[];
    readonly prefix: 'trusted.overlay.' | 'user.overlay.';
    readonly map: Parameters<typeof writeDiff>[0]['map'];
    /** For its files. */
    readonly directory: string;
  };
}
export interface InsideOutcome {
  readonly done: readonly string[];
  readonly after: readonly (readonly [path: string, node: Omit<Node, 'mtime'> & { mtime: string }])[];
}

export function run(request: InsideRequest, { lent }: { readonly lent: readonly number[] }): InsideOutcome {
  const tree = `/proc/self/fd/${lent[request.tree]}`;
  const { history, diff } = request;
  const random = new Random((history?.seed ?? 0) + 1);
  const done = history ? live(tree, random, abilityOf(history), 1 + random.below(30)) : [];
  const after = [...snapshot(tree, { ...viewOf(request.view), attributes: true })].map(
    ([path, node]) => [path, { ...node, mtime: String(node.mtime) }] as const,
  );
  if (diff) {
    const { parts, prefix, map, directory } = diff;
    into(join(directory, 'changes'), (output) => listChanges({ prefix, parts }, { result: -1, input: undefined, output, lent }));
    into(join(directory, 'diff'), (output) => writeDiff({ prefix, parts, map, whiteouts: 'names' }, { result: -1, input: undefined, output, lent }));
  }
  return { done, after };
}

export const snapshotOf = (after: InsideOutcome['after']): Snapshot => new Map(after.map(([path, node]) => [path, { ...node, mtime: BigInt(node.mtime) }]));

/** Inside ids. */
export function viewOf({ shift, self }: View): SnapshotOptions {
  if (self) return { uid: (id) => (id === self.uid ? 0 : id), gid: (id) => (id === self.gid ? 0 : id) };
  if (shift === 0) return {};
  const inside = (id: number): number => (id >= shift && id < shift + 65536 ? id - shift : 65534);
  return { uid: inside, gid: inside };
}

export function abilityOf({ owners, devices, shift }: Omit<NonNullable<InsideRequest['history']>, 'seed'>): Ability {
  return {
    owners: owners.map((id) => id + shift),
    devices,
    setAttribute: (path, name, value) => {
      const fd = openSync(path, 'r');
      const result = native().files.setAttribute(fd, Buffer.from(name), value);
      closeSync(fd);
      if (result < 0) throw Object.assign(new Error('setxattr'), { code: String(result) });
    },
    makeNode: (path, kind) => {
      const slash = path.lastIndexOf(0x2f);
      const fd = openSync(path.subarray(0, slash), 'r');
      const [mode, major, minor] = kind === 'fifo' ? [0o010640, 0, 0] : [0o020640, 5, 1];
      const result = native().files.makeNode(fd, path.subarray(slash + 1), mode as number, major as number, minor as number);
      closeSync(fd);
      if (result < 0) throw Object.assign(new Error('mknod'), { code: String(result) });
    },
  };
}

/** Runs a task here, with a file for its output. */
export function into(path: string, task: (fd: number) => void): void {
  const fd = openSync(path, 'w+');
  try {
    task(fd);
  } finally {
    closeSync(fd);
  }
}
