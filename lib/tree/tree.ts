import { lstat, rm, rmdir } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { IsolationError } from '../errors.js';
import { caller } from '../host/caller.js';
import { checked, native } from '../native.js';
import * as k from '../plan/constants.js';
import { type Owner, shareOwner } from '../rootfs/ordinary-owner.js';
import { idsFor } from '../security/id-map.js';
import type { Compression } from './compression.js';
import type { ExtractOutcome, TarFiles } from './extract.js';
import { pathText } from './names.js';
import type { OverlayPrefix } from './overlay-attributes.js';
import type { ReadAheadRequest } from './read-ahead.js';
import { breakRing, giveBack, type Ring, takeRing } from './ring.js';
import { outputOf, startTask, type Task } from './task.js';
import type { TreeRequest } from './tree-tasks.js';

// Layers as directories: in the form that overlayfs takes as a lower layer, in and out of tars, and away.

export interface ExtractOptions {
  /** Bytes that the tar may have, and the contents of all files together, holes too. Default: no limit. */
  readonly sizeLimit?: number | undefined;
  /** Default: 4,000,000. */
  readonly entryLimit?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** The report has the digest of the tar, and it may be compressed by this. */
  readonly digest?: { readonly compression: Compression };
  /** The tar is kept in these. */
  readonly keep?: TarFiles;
}

export interface ExtractReport {
  readonly entries: number;
  /** Of files' contents, once for all names of a file. */
  readonly sizeBytes: number;
  readonly tar: ExtractOutcome['tar'] & {
    /** sha256, in hexadecimal digits; undefined: nobody has asked. */
    readonly digest: string | undefined;
  };
  /** It has the marker that hides whatever is below. */
  readonly isOpaque: boolean;
  /** 'recorded': all files are the caller's, an ordinary user's; owner-record.ts. */
  readonly owners: 'kept' | 'recorded';
  /** Device nodes, which an ordinary user cannot make. */
  readonly skipped: readonly { readonly path: string; readonly pathBytes: Buffer; readonly type: 'block-device' | 'char-device' }[];
  /** Owners that could not be recorded, and extended attributes that this file system or user cannot have. */
  readonly unrecorded: readonly { readonly path: string; readonly pathBytes: Buffer; readonly what: string }[];
}

const module = new URL('./tree-tasks.js', import.meta.url);
const readAhead = new URL('./read-ahead.js', import.meta.url);
const defaultEntryLimit = 4_000_000;

export const overlayPrefix = (): OverlayPrefix => (caller().privileged ? 'trusted.overlay.' : 'user.overlay.');

/**
 * An uncompressed tar into an empty directory. A string is the path of a tar, a number a descriptor. A stream is read to its very end. On failure it is
 * destroyed, and some part of the tree is there: `removeTree` it.
 *
 * Rejects with `ImageError` ERR_CLOISTER_LAYER for a tar that is broken or hostile, naming the entry; with `IsolationError`
 * ERR_CLOISTER_STEP where the host refuses. An ordinary user needs user namespaces. image-spec's layer.md.
 */
export async function extract(tar: Readable | string | number, directory: string, options: ExtractOptions = {}): Promise<ExtractReport> {
  const input = typeof tar === 'string' ? opened(tar) : tar;
  try {
    const keepOwners = caller().privileged;
    const request = {
      kind: 'extract' as const,
      sizeLimit: options.sizeLimit ?? Number.MAX_SAFE_INTEGER,
      entryLimit: options.entryLimit ?? defaultEntryLimit,
      keepOwners,
      prefix: overlayPrefix(),
      whiteouts: 'names' as const,
    };
    const kept = options.keep ? [options.keep.recipe, options.keep.whole] : [];
    const { signal, digest: hashed } = options;
    const { digest, outcome } = await withTree(directory, async (root, owner) => {
      const start = async (source: Readable | number | undefined, ring?: Ring): Promise<ExtractOutcome> =>
        await startTask<ExtractOutcome>({ module, request: { ...request, ring }, lent: [root, ...kept], owner, input: source, signal }).done;
      if (!hashed) return { digest: undefined, outcome: await start(input) };
      const read = (ring: Ring | undefined, lent: readonly number[]): Task<string> => {
        const request: ReadAheadRequest = { ...hashed, ring };
        return startTask<string>({ module: readAhead, request, lent, owner: undefined, input, signal });
      };
      return owner ? await throughPipe(read, start) : await throughRing(read, start);
    });
    const located = <T extends { readonly path: string }>(list: readonly T[]): (T & { readonly pathBytes: Buffer })[] =>
      list.map((item) => {
        const pathBytes = Buffer.from(item.path, 'latin1');
        return { ...item, path: pathText(pathBytes), pathBytes };
      });
    return {
      ...outcome,
      tar: { ...outcome.tar, digest },
      owners: keepOwners ? 'kept' : 'recorded',
      skipped: located(outcome.skipped),
      unrecorded: located(outcome.unrecorded),
    };
  } catch (error) {
    if (typeof tar === 'object') tar.destroy();
    throw error;
  } finally {
    if (typeof tar === 'string') native().close(input as number);
  }
}

interface Extracted {
  readonly digest: string;
  readonly outcome: ExtractOutcome;
}

type StartReading = (ring: Ring | undefined, lent: readonly number[]) => Task<string>;
type StartExtraction = (from: number | undefined, ring?: Ring) => Promise<ExtractOutcome>;

async function throughRing(read: StartReading, extract: StartExtraction): Promise<Extracted> {
  const ring = takeRing();
  const reading = read(ring, []);
  // Not at its end: what it has put in is still to be extracted.
  reading.done.catch(() => breakRing(ring));
  const extracted = await both(reading, extract(undefined, ring), () => breakRing(ring));
  giveBack(ring);
  return extracted;
}

/** A process of its own has no memory in common with a thread of ours. */
async function throughPipe(read: StartReading, extract: StartExtraction): Promise<Extracted> {
  const open = new Set(checked(native().pipe(), 'pipe2', 'work on a tree') as [number, number]);
  const [readEnd, writeEnd] = [...open] as [number, number];
  const close = (end: number): void => {
    if (open.delete(end)) native().close(end);
  };
  try {
    const reading = read(undefined, [writeEnd]);
    reading.done.catch(() => {}).finally(() => close(writeEnd));
    return await both(reading, extract(readEnd), () => close(readEnd));
  } finally {
    close(readEnd);
    close(writeEnd);
  }
}

/** `leave` tells the reader that nobody takes any more. */
async function both(reading: Task<string>, extraction: Promise<ExtractOutcome>, leave: () => void): Promise<Extracted> {
  extraction.catch((error) => {
    reading.starve(error);
    leave();
  });
  const [digest, outcome] = await Promise.allSettled([reading.done, extraction]);
  // What could not be read looks cut short at the other end.
  if (digest.status === 'rejected') throw digest.reason;
  if (outcome.status === 'rejected') throw outcome.reason;
  return { digest: digest.value, outcome: outcome.value };
}

/**
 * A directory in that form as a layer's tar: the same content makes the same bytes, an entry for the directory itself is the
 * first. Errors of the stream are those of `extract`.
 */
export function pack(directory: string, options: { readonly signal?: AbortSignal | undefined } = {}): Readable {
  return Readable.from(written({ kind: 'pack', prefix: overlayPrefix() }, directory, [], options.signal), { objectMode: false });
}

/** The tar that a tree was made of, by its recipe. It is to be checked by its digest: some file may have changed. */
export async function* assemble(directory: string, recipe: string): AsyncGenerator<Buffer, void, undefined> {
  const file = opened(recipe);
  try {
    yield* written({ kind: 'assemble' }, directory, [file], undefined);
  } finally {
    native().close(file);
  }
}

async function* written(
  request: TreeRequest,
  directory: string,
  lent: readonly number[],
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer, void, undefined> {
  const { root, owner, release } = await openTree(directory);
  let task: Task<void> | undefined;
  try {
    task = startTask<void>({ module, request, lent: [root, ...lent], owner, output: true, signal });
    yield* outputOf(task);
  } finally {
    await task?.done.catch(() => {});
    release();
  }
}

/** rm -rf, of a tree that a stranger has made. Follows no symlink; a tree that is not there is fine. */
export async function removeTree(path: string): Promise<void> {
  const status = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (!status) return;
  if (!status.isDirectory()) {
    await rm(path, { force: true });
    return;
  }
  await emptyTree(path);
  await rmdir(path);
}

/** All that is in a directory. */
export async function emptyTree(path: string): Promise<void> {
  const request: TreeRequest = { kind: 'empty' };
  await withTree(path, (root, owner) => startTask<void>({ module, request, lent: [root], owner }).done);
}

/** The path, for people, at which a layer first takes away something of those below it; undefined: it only adds. */
export async function whiteoutIn(layer: string): Promise<string | undefined> {
  const request: TreeRequest = { kind: 'find whiteout', prefix: overlayPrefix() };
  const found = await withTree(layer, (root, owner) => startTask<string | undefined>({ module, request, lent: [root], owner }).done);
  return found === undefined ? undefined : pathText(Buffer.from(found, 'latin1'));
}

async function withTree<T>(directory: string, use: (root: number, owner: Owner | undefined) => Promise<T>): Promise<T> {
  const { root, owner, release } = await openTree(directory);
  try {
    return await use(root, owner);
  } finally {
    release();
  }
}

async function openTree(directory: string): Promise<{ root: number; owner: Owner | undefined; release: () => void }> {
  const root = opened(directory, k.O_RDONLY | k.O_DIRECTORY | k.O_NOFOLLOW);
  if (caller().privileged) return { root, owner: undefined, release: () => void native().close(root) };
  try {
    // Itself as root, and nobody else: files are to be its own, to be removed by any tool.
    const { owner, release } = await shareOwner(await idsFor('self', caller(), { uid: 0, gid: 0 }));
    return { root, owner, release: () => [release(), native().close(root)] };
  } catch (error) {
    native().close(root);
    throw error;
  }
}

function opened(path: string, flags = k.O_RDONLY): number {
  const fd = native().openFile(path, flags);
  if (fd < 0) throw IsolationError.ofErrno('ERR_CLOISTER_STEP', fd, { syscall: 'open', step: 'open', path });
  return fd;
}
