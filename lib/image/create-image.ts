import { createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { compressor } from '../tree/compression.js';
import { type Digest, digestOf, Meter } from './digest.js';
import { atOnce, haveLayer, placeDocuments } from './incoming-image.js';
import { missingLayer } from './layer.js';
import { tarOf } from './layer-tar.js';
import { type Descriptor, parseConfiguration, parseManifest } from './manifest.js';
import { layerMediaTypes, ociConfig, ociManifest } from './media-types.js';
import { placeBlob } from './placing.js';
import { ownPlatform } from './platform.js';
import type { ImageConfig } from './types.js';
import type { Workspace } from './workspace.js';

/** No time is in it: the same layers and the same config are the same image. */
export async function createImage(workspace: Workspace, layers: readonly Digest[], config: ImageConfig, name: string | undefined): Promise<Digest> {
  for (const layer of layers) if (!(await haveLayer(workspace, layer))) missingLayer(layer, workspace.store);
  const compressed = new Map<Digest, Descriptor>();
  await atOnce([...new Set(layers)], 2, undefined, async (layer) => {
    compressed.set(layer, await compressedLayer(workspace, layer));
  });
  const configuration = { ...ownPlatform(), config, rootfs: { type: 'layers', diff_ids: layers }, history: layers.map(() => ({ created_by: 'cloister' })) };
  return await placeNewImage(
    workspace,
    Buffer.from(JSON.stringify(configuration)),
    layers.map((layer) => compressed.get(layer) as Descriptor),
    name,
  );
}

/** An image whose layers are here, with a manifest of ours. */
export async function placeNewImage(workspace: Workspace, configBytes: Uint8Array, layers: readonly Descriptor[], name: string | undefined): Promise<Digest> {
  const manifest = {
    schemaVersion: 2,
    mediaType: ociManifest,
    config: { mediaType: ociConfig, digest: digestOf(configBytes), size: configBytes.length },
    layers: layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
  };
  const manifestBytes = Buffer.from(JSON.stringify(manifest));
  const digest = digestOf(manifestBytes);
  const checked = { digest, manifestBytes, configBytes, manifest: parseManifest(manifestBytes, ociManifest), configuration: parseConfiguration(configBytes) };
  await placeDocuments(workspace, checked, name);
  return digest;
}

/** The blob of a layer; one that came uncompressed gets one. */
async function compressedLayer(workspace: Workspace, layer: Digest): Promise<Descriptor> {
  const { store, lock, newPath } = workspace;
  const tar = store.tarRecord(layer) ?? missingLayer(layer, store);
  if (tar.mediaType !== layerMediaTypes.none) return tar;
  const file = newPath();
  const meter = new Meter();
  await pipeline(await tarOf(store, layer), compressor(), meter, createWriteStream(file, { flags: 'wx', mode: 0o600 }));
  const record = { digest: meter.digest(), size: meter.bytes, mediaType: layerMediaTypes.gzip };
  await lock.adding(async () => {
    await placeBlob(store, record.digest, file);
    await store.put('tars', layer, record, newPath());
  });
  return record;
}
