import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { extract, pack, removeTree } from '../tree/tree.js';
import { chainIdOf, type Digest, digestOfFile, Meter } from './digest.js';
import { configurationOf, manifestOf } from './image.js';
import { bothEnds } from './incoming-layer.js';
import { assembled, hasBlob, tarInBlob } from './layer-tar.js';
import { hasLayer } from './placing.js';
import type { StoreDirectory } from './store-directory.js';
import type { Workspace } from './workspace.js';

export interface Verification {
  readonly ok: boolean;
  /** Blobs, layers, nodes, images and names that were looked at. */
  readonly checked: number;
  readonly problems: readonly { readonly digest: string; readonly problem: string }[];
}

/**
 * Each object against what it is named by. A layer's files: its tar is extracted once more, and both directories, packed, have to give the
 * same bytes. A digest of the packed form could not be kept instead: it would say that all is broken when the form changes.
 */
export async function verifyStore(workspace: Workspace): Promise<Verification> {
  const { store, lock } = workspace;
  const problems: { digest: string; problem: string }[] = [];
  let checked = 0;
  const check = async (digest: string, look: () => Promise<string | undefined> | string | undefined): Promise<void> => {
    checked++;
    const problem = await Promise.resolve()
      .then(look)
      .catch((error: Error) => error.message);
    if (problem !== undefined) problems.push({ digest, problem });
  };
  for (const digest of store.digests('blobs/sha256')) {
    await check(digest, async () => {
      // Collected meanwhile, perhaps.
      const found = await digestOfFile(store.blob(digest)).catch(() => undefined);
      return found === digest || !existsSync(store.blob(digest)) ? undefined : `the blob has other bytes: they are ${found ?? 'unreadable'}`;
    });
  }
  for (const digest of store.digests('layers')) {
    const held = await lock.adding(async () => {
      lock.lease(digest);
      // Without a record it is not there: what a gc() or an import that was killed has left, for the next gc().
      return existsSync(store.layer(digest)) && store.has('tars', digest);
    });
    if (held) await check(digest, () => layerProblem(workspace, digest));
  }
  await lock.adding(async () => {
    for (const chainId of store.digests('chains')) await check(chainId, () => chainProblem(store, chainId));
    for (const digest of store.digests('images')) await check(digest, () => imageProblem(store, digest));
    for (const { name, image } of store.names()) {
      await check(image, () => (store.has('images', image) ? undefined : `the name ${JSON.stringify(name)} is of an image that is not there`));
    }
  });
  return { ok: problems.length === 0, checked, problems };
}

async function layerProblem(workspace: Workspace, digest: Digest): Promise<string | undefined> {
  const { store } = workspace;
  if (!store.layerRecord(digest)) return 'its record layer.json is not there';
  const tar = store.tarRecord(digest);
  if (!tar || !hasBlob(store, tar.digest)) return 'the blob with its tar is not there';
  const directory = workspace.newPath();
  await mkdir(directory);
  try {
    const hasRecipe = existsSync(store.recipe(digest));
    const inBlob = existsSync(store.blob(tar.digest));
    const source = inBlob ? await tarInBlob(store, tar) : assembled(store, digest);
    const meter = new Meter();
    await bothEnds(extract(meter, directory), pipeline(source, meter), undefined);
    const found = meter.digest();
    if (found !== digest) return `its tar is ${found}`;
    const [here, anew] = [await packedDigest(store.tree(digest)), await packedDigest(directory)];
    if (here !== anew) return 'its files are not those of its tar any more';
    if (hasRecipe && inBlob) for await (const _ of assembled(store, digest));
    return undefined;
  } finally {
    await removeTree(directory);
  }
}

async function packedDigest(directory: string): Promise<Digest> {
  const meter = new Meter();
  meter.resume();
  await pipeline(pack(directory), meter);
  return meter.digest();
}

function chainProblem(store: StoreDirectory, chainId: Digest): string | undefined {
  const record = store.chainRecord(chainId);
  if (!record) return undefined;
  if (chainIdOf(record.parent, record.layer) !== chainId) return 'its record is of another node';
  if (!hasLayer(store, record.layer)) return `its layer ${record.layer} is not there`;
  return record.parent === undefined || store.has('chains', record.parent) ? undefined : `its parent ${record.parent} is not there`;
}

function imageProblem(store: StoreDirectory, digest: Digest): string | undefined {
  const record = store.imageRecord(digest);
  if (!record) return undefined;
  const { diffIds } = configurationOf(store, manifestOf(store, digest, record.mediaType));
  if (diffIds.join() !== record.layers.join()) return 'its record has other layers than its configuration';
  let chainId: Digest | undefined;
  for (const layer of diffIds) {
    chainId = chainIdOf(chainId, layer);
    if (!store.has('chains', chainId)) return `its layer ${layer} is not there`;
  }
  return undefined;
}
