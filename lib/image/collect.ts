import { existsSync, statSync } from 'node:fs';
import { rename, rm, unlink } from 'node:fs/promises';
import { ImageError } from '../errors.js';
import { harmless } from '../text.js';
import { chainIdOf, type Digest } from './digest.js';
import { manifestOf } from './image.js';
import { dropIdleHolds, missingLayer } from './layer.js';
import type { Manifest } from './manifest.js';
import { settle, settleAlone } from './recent.js';
import { type ChainRecord, type StoreDirectory, syncDirectory } from './store-directory.js';
import type { StoreLock } from './store-lock.js';
import type { Workspace } from './workspace.js';

export interface Collected {
  readonly removed: readonly string[];
  readonly freedBytes: number;
}

interface Contents {
  readonly chains: ReadonlyMap<Digest, ChainRecord>;
  /** Chains of each image. */
  readonly images: ReadonlyMap<Digest, readonly Digest[]>;
}

function contentsOf(store: StoreDirectory): Contents {
  const chains = new Map(store.digests('chains').map((chainId) => [chainId, store.chainRecord(chainId) as ChainRecord]));
  const images = new Map(
    store.digests('images').map((digest) => {
      const line: Digest[] = [];
      for (const layer of store.imageRecord(digest)?.layers ?? []) line.push(chainIdOf(line.at(-1), layer));
      return [digest, line] as const;
    }),
  );
  return { chains, images };
}

/** `own`: the leases of the object that collects, which do not count. */
export async function collect(workspace: Workspace, own: StoreLock): Promise<Collected> {
  const { store, lock } = workspace;
  dropIdleHolds();
  await settle(store, own);
  return await lock.alone(async () => {
    await settleAlone(store, own);
    const contents = contentsOf(store);
    const used = new Set([...contents.images.values()].flat());
    const keep = (chainId: Digest | undefined): void => {
      for (let at = chainId; at !== undefined && !used.has(at); at = contents.chains.get(at)?.parent) used.add(at);
    };
    for (const [chainId, { layer }] of contents.chains) if (!used.has(chainId) && !own.isFree(layer)) keep(chainId);
    return await takeAway(
      workspace,
      contents,
      [...contents.chains.keys()].filter((chainId) => !used.has(chainId)),
      (digest) => own.isFree(digest),
    );
  });
}

export async function removeLayer(workspace: Workspace, own: StoreLock, chainId: Digest): Promise<void> {
  const { store, lock } = workspace;
  dropIdleHolds();
  await settle(store, own);
  await lock.alone(async () => {
    await settleAlone(store, own);
    const contents = contentsOf(store);
    const record = contents.chains.get(chainId);
    if (!record) missingLayer(chainId, store);
    const child = [...contents.chains].find(([, { parent }]) => parent === chainId)?.[0];
    const image = [...contents.images].find(([, line]) => line.includes(chainId))?.[0];
    if (child ?? image) {
      const user = image ? `the image ${harmless(store.names().find((name) => name.image === image)?.name ?? image)}` : `the layer ${child} on it`;
      throw new ImageError('ERR_CLOISTER_IN_USE', `the layer ${chainId} is used by ${user}`, {
        step: 'remove the layer',
        hint: `Remove ${image ? 'that image' : 'that layer'} first.`,
      });
    }
    const others = [...contents.chains].some(([other, { layer }]) => other !== chainId && layer === record.layer);
    if (!others && !own.isFree(record.layer)) {
      throw new ImageError('ERR_CLOISTER_BUSY', `the layer ${chainId} is used by a root, or by an operation that is going on`, {
        step: 'remove the layer',
        hint: 'Dispose of the roots that have it, in whatever process they are.',
      });
    }
    await takeAway(workspace, contents, [chainId], undefined);
  });
}

export async function removeImage(workspace: Workspace, own: StoreLock, digest: Digest, name: string | undefined): Promise<void> {
  const { store, lock } = workspace;
  await settle(store, own);
  await lock.alone(async () => {
    await settleAlone(store, own);
    const all = store.names().filter(({ image }) => image === digest);
    // A name that has been given to another image since is not this one's any more.
    const going = name === undefined ? all : all.filter((record) => record.name === name);
    for (const record of going) await unlink(store.name(record.name));
    if (going.length === all.length) await rm(store.image(digest), { force: true });
    await syncDirectory(`${store.path}/names`);
    await syncDirectory(`${store.path}/images`);
  });
}

/** Nodes, then what nothing refers to any more. Only renamed here: to delete takes long, and is done when the lock is free again. */
async function takeAway(
  { store, lock, newPath }: Workspace,
  { chains, images }: Contents,
  going: readonly Digest[],
  mayGo: ((digest: Digest) => boolean) | undefined,
): Promise<Collected> {
  const removed: string[] = [];
  let freedBytes = 0;
  for (const chainId of going) await unlink(store.chain(chainId));
  await syncDirectory(`${store.path}/chains`);
  const leaving = new Set(going);
  const staying = new Set([...chains].filter(([chainId]) => !leaving.has(chainId)).map(([, { layer }]) => layer));
  for (const digest of images.keys()) for (const layer of store.imageRecord(digest)?.layers ?? []) staying.add(layer);
  const candidates = mayGo ? store.digests('layers') : going.map((chainId) => (chains.get(chainId) as ChainRecord).layer);
  const gone = new Set(candidates.filter((digest) => !staying.has(digest) && (mayGo?.(digest) ?? true)));
  // First what speaks for them.
  for (const digest of gone) await rm(store.tar(digest), { force: true });
  await syncDirectory(`${store.path}/tars`);
  for (const digest of gone) {
    if (!existsSync(store.layer(digest))) continue;
    freedBytes += store.layerRecord(digest)?.sizeBytes ?? 0;
    removed.push(digest);
    await rename(store.layer(digest), newPath());
  }
  await syncDirectory(`${store.path}/layers`);
  for (const chainId of going) {
    const { layer } = chains.get(chainId) as ChainRecord;
    if (!gone.has(layer)) removed.push(chainId);
  }
  const ownedBlobs = new Set<Digest>();
  for (const digest of store.digests('tars')) {
    const record = store.tarRecord(digest);
    if (!record) continue;
    if (existsSync(store.layer(digest))) ownedBlobs.add(record.digest);
    else if (gone.has(digest) || mayGo?.(digest)) await unlink(store.tar(digest));
    else ownedBlobs.add(record.digest);
  }
  for (const digest of images.keys()) {
    ownedBlobs.add(digest);
    const manifest = readable(store, digest);
    // Of an image whose manifest is damaged nobody knows what belongs to it.
    if (!manifest) return { removed, freedBytes };
    for (const part of [manifest.config, ...manifest.layers]) ownedBlobs.add(part.digest);
  }
  await syncDirectory(`${store.path}/tars`);
  // A resumed pull has its lock; one that was given up has not.
  for (const digest of mayGo ? store.digests('partial') : []) {
    if (!lock.claimPartial(digest)) continue;
    freedBytes += statSync(store.partial(digest)).size;
    await rename(store.partial(digest), newPath());
  }
  for (const digest of store.digests('blobs/sha256')) {
    if (ownedBlobs.has(digest)) continue;
    freedBytes += statSync(store.blob(digest)).size;
    await rename(store.blob(digest), newPath());
  }
  return { removed, freedBytes };
}

function readable(store: StoreDirectory, digest: Digest): Manifest | undefined {
  try {
    return manifestOf(store, digest, store.imageRecord(digest)?.mediaType ?? '');
  } catch {
    return undefined;
  }
}
