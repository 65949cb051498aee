import { join } from 'node:path';
import { ImageError } from '../errors.js';
import { listed } from '../text.js';
import { placeNewImage } from './create-image.js';
import type { Digest } from './digest.js';
import { atOnce, haveLayer, type ReceiveOptions } from './incoming-image.js';
import { receiveLayer } from './incoming-layer.js';
import { missingLayer } from './layer.js';
import { inside, openRegular, readRegular } from './local-file.js';
import { type Descriptor, listOf, mostJsonBytes, objectOf, parseConfiguration, parseJson, textOf, wrong } from './manifest.js';
import { placeLayer } from './placing.js';
import type { Workspace } from './workspace.js';

// What `docker save` writes: manifest.json names a configuration and uncompressed layers, in files of the archive. Described in
// moby's image/spec/spec.md ("Combined Image JSON + Filesystem Changeset Format"). It has no manifest with digests, so the image gets one of ours.

interface Item {
  readonly config: string;
  readonly names: readonly string[];
  readonly layers: readonly string[];
}

export async function importDockerArchive(
  workspace: Workspace,
  directory: string,
  reference: string | undefined,
  name: string | undefined,
  options: ReceiveOptions,
): Promise<{ digest: Digest; name: string | undefined }> {
  const items = listOf(parseJson(readRegular(join(directory, 'manifest.json'), mostJsonBytes), 'manifest.json'), 'manifest.json', itemOf);
  const item = choose(items, reference);
  const configBytes = readRegular(inside(directory, item.config), mostJsonBytes);
  const configuration = parseConfiguration(configBytes);
  if (configuration.diffIds.length !== item.layers.length) throw wrong('Layers', `the ${configuration.diffIds.length} of the configuration`, item.layers);
  const { onProgress } = options;
  const files = new Map(configuration.diffIds.map((diffId, index) => [diffId, item.layers[index] as string]));
  await atOnce([...files], 2, options.signal, async ([diffId, file], signal) => {
    if (await haveLayer(workspace, diffId)) return;
    const { file: source, size } = await openRegular(inside(directory, file));
    const received = await receiveLayer(workspace, {
      source,
      diffId,
      sizeLimit: options.sizeLimit,
      signal,
      onBytes: onProgress && ((doneBytes) => onProgress({ digest: diffId, doneBytes, totalBytes: size })),
    });
    await workspace.lock.adding(() => placeLayer(workspace, received));
  });
  const layers = configuration.diffIds.map((diffId): Descriptor => workspace.store.tarRecord(diffId) ?? missingLayer(diffId, workspace.store));
  const as = name ?? item.names[0];
  return { digest: await placeNewImage(workspace, configBytes, layers, as), name: as };
}

function itemOf(value: unknown, what: string): Item {
  const { Config, RepoTags, Layers } = objectOf(value, what);
  return {
    config: textOf(Config, `${what}.Config`),
    names: RepoTags === null || RepoTags === undefined ? [] : listOf(RepoTags, `${what}.RepoTags`, textOf),
    layers: listOf(Layers, `${what}.Layers`, textOf),
  };
}

function choose(items: readonly Item[], reference: string | undefined): Item {
  const meant = reference === undefined ? items : items.filter(({ names }) => names.some((name) => name === reference || name === `${reference}:latest`));
  const all = listed(items.map(({ names, config }) => names[0] ?? config));
  const [first, second] = meant;
  if (!first)
    throw new ImageError('ERR_CLOISTER_NOT_FOUND', `the archive has no image ${reference ?? ''}`, { step: 'read the archive', hint: `It has ${all}.` });
  if (second)
    throw new ImageError('ERR_CLOISTER_AMBIGUOUS', `the archive has several images: ${all}`, { step: 'read the archive', hint: "Say which by 'path:name'." });
  return first;
}
