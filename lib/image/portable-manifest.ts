import { type Digest, digestOf } from './digest.js';
import { configurationOf, manifestOf, missingImage, readBlob } from './image.js';
import { missingLayer } from './layer.js';
import { hasBlob } from './layer-tar.js';
import { type Descriptor, type Manifest, parseManifest } from './manifest.js';
import { dockerLayerTypes, dockerManifest } from './media-types.js';
import type { StoreDirectory } from './store-directory.js';

export interface PortableManifest {
  readonly digest: Digest;
  readonly bytes: Buffer;
  readonly manifest: Manifest;
}

/**
 * The manifest of an image whose blobs are all here: its own. Where a layer was here before the image came, compressed by somebody else, it was not
 * fetched; then it is the same image with the blobs that there are, which is another manifest. `there`: blobs that are not needed.
 */
export function portableManifest(store: StoreDirectory, image: Digest, there: ReadonlySet<Digest> = new Set()): PortableManifest {
  const record = store.imageRecord(image) ?? missingImage(image, store);
  const bytes = readBlob(store, image);
  const manifest = manifestOf(store, image, record.mediaType);
  const has = ({ digest }: Descriptor): boolean => there.has(digest) || hasBlob(store, digest);
  if (manifest.layers.every(has)) return { digest: image, bytes, manifest };
  const { diffIds } = configurationOf(store, manifest);
  const json = JSON.parse(bytes.toString()) as { layers: unknown[] };
  json.layers = manifest.layers.map((layer, index) => {
    if (has(layer)) return json.layers[index];
    const diffId = diffIds[index] as Digest;
    const { mediaType, digest, size } = store.tarRecord(diffId) ?? missingLayer(diffId, store);
    return { mediaType: manifest.mediaType === dockerManifest ? (dockerLayerTypes[mediaType] ?? mediaType) : mediaType, digest, size };
  });
  const changed = Buffer.from(JSON.stringify(json));
  return { digest: digestOf(changed), bytes: changed, manifest: parseManifest(changed, manifest.mediaType) };
}
