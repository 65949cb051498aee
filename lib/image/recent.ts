import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ImageError } from '../errors.js';
import { startTask } from '../tree/task.js';
import type { TreeRequest } from '../tree/tree-tasks.js';
import { digestOfFile } from './digest.js';
import { manifestOf } from './image.js';
import { type RecordKind, recordKinds, type StoreDirectory, syncDirectory } from './store-directory.js';
import type { StoreLock } from './store-lock.js';
import { Workspace } from './workspace.js';

// What has been put into a store can be used at once, and is on the disk some time later: to wait for that takes longer than all the rest of an
// import, and only a loss of power needs it. Until then its records are in recent/BOOT/, where BOOT is that start of the machine
// (/proc/sys/kernel/random/boot_id), and nobody believes them after another start. `settle` syncs the file system, and then moves them to their
// place: first what is referred to, each kind durably before the next. What lies elsewhere (a layer's directory, a blob) is believed only where
// a record refers to it.

/** After the first start of the machine, or the first use of the store since: what nobody answers for goes. */
export async function beginBoot(store: StoreDirectory): Promise<void> {
  if (existsSync(store.recent)) return;
  await using workspace = await Workspace.open(store);
  await workspace.lock.alone(async () => {
    if (existsSync(store.recent)) return;
    const all = join(store.path, 'recent');
    await mkdir(all, { recursive: true, mode: 0o700 });
    for (const boot of readdirSync(all)) await rename(join(all, boot), workspace.newPath());
    for (const digest of store.digests('layers')) if (!store.has('tars', digest)) await rename(store.layer(digest), workspace.newPath());
    const owned = ownedBlobs(store);
    for (const digest of store.digests('blobs/sha256')) {
      // Nobody refers to it, and somebody may, who has the same: but not to half of it.
      if (!owned.has(digest) && (await digestOfFile(store.blob(digest))) !== digest) await rename(store.blob(digest), workspace.newPath());
    }
    // Whole or not at all: this is what says that all of the above has been done.
    const made = workspace.newPath();
    for (const kind of recordKinds) await mkdir(join(made, kind), { recursive: true, mode: 0o700 });
    await rename(made, store.recent);
  });
}

function ownedBlobs(store: StoreDirectory): Set<string> {
  const owned = new Set<string>(store.digests('tars').flatMap((digest) => store.tarRecord(digest)?.digest ?? []));
  for (const digest of store.digests('images')) {
    owned.add(digest);
    try {
      const { config, layers } = manifestOf(store, digest, store.imageRecord(digest)?.mediaType ?? '');
      for (const part of [config, ...layers]) owned.add(part.digest);
    } catch {
      // verify() tells of it.
    }
  }
  return owned;
}

/** One record, as it is now: it may be replaced by another one at any time. */
interface Recent {
  readonly kind: RecordKind;
  readonly name: string;
  readonly identity: string;
}

function recentOf(store: StoreDirectory): Recent[] {
  return recordKinds.flatMap((kind) =>
    readdirSync(join(store.recent, kind)).flatMap((name) => {
      const identity = identityOf(join(store.recent, kind, name));
      return identity === undefined ? [] : [{ kind, name, identity }];
    }),
  );
}

function identityOf(path: string): string | undefined {
  const status = statSync(path, { bigint: true, throwIfNoEntry: false });
  return status && `${status.ino} ${status.ctimeNs}`;
}

export const hasRecent = (store: StoreDirectory): boolean => recordKinds.some((kind) => readdirSync(join(store.recent, kind)).length > 0);

/** All that is in the store by now is on the disk when this has resolved. `own` has been open for as long as what is there has been made by its holder. */
export async function settle(store: StoreDirectory, own: StoreLock): Promise<void> {
  const recent = recentOf(store);
  if (recent.length === 0) return;
  await sync(store, own);
  await own.alone(() => move(store, recent));
}

/** The same within `alone`: nothing is recent any more. Call `settle` before, so that it does not take long. */
export async function settleAlone(store: StoreDirectory, own: StoreLock): Promise<void> {
  const recent = recentOf(store);
  if (recent.length === 0) return;
  await sync(store, own);
  await move(store, recent);
}

async function move(store: StoreDirectory, recent: readonly Recent[]): Promise<void> {
  for (const kind of recordKinds) {
    let moved = false;
    for (const { name, identity } of recent.filter((record) => record.kind === kind)) {
      const from = join(store.recent, kind, name);
      if (identityOf(from) !== identity) continue;
      await rename(from, join(store.path, kind, name));
      moved = true;
    }
    if (moved) await syncDirectory(join(store.path, kind));
  }
}

/**
 * syncfs(2) tells of an error once, by a descriptor that was open before it. Who asks again is told that all is well: so the failure is
 * written down, for this boot.
 */
async function sync(store: StoreDirectory, own: StoreLock): Promise<void> {
  const note = join(store.recent, 'failed');
  if (!existsSync(note)) {
    try {
      const request: TreeRequest = { kind: 'sync' };
      await startTask<void>({ module: new URL('../tree/tree-tasks.js', import.meta.url), request, lent: [own.descriptor], owner: undefined }).done;
      return;
    } catch (error) {
      await writeFile(note, (error as Error).message, { mode: 0o600 });
    }
  }
  throw new ImageError('ERR_CLOISTER_STORE', `what has been put into ${store.path} could not be written to the disk: ${readFileSync(note, 'utf8')}`, {
    step: 'sync the store',
    path: store.path,
    hint: 'The kernel’s log tells more. Nothing that has come since the last start of this machine will be trusted after the next; import it again then.',
  });
}
