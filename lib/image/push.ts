import { type Readable, Transform } from 'node:stream';
import { ImageError } from '../errors.js';
import type { Digest } from './digest.js';
import { manifestOf, missingImage } from './image.js';
import { atOnce } from './incoming-image.js';
import { blobOf } from './layer-tar.js';
import type { Descriptor } from './manifest.js';
import { portableManifest } from './portable-manifest.js';
import { parseReference } from './reference.js';
import { Registry } from './registry.js';
import type { TransferOptions } from './types.js';
import type { Workspace } from './workspace.js';

const blobsAtOnce = 3;
const mostAttempts = 3;

/** distribution-spec, "Push": blobs first, then the manifest that names them. */
export async function pushImage({ store }: Workspace, image: Digest, name: string, options: TransferOptions): Promise<void> {
  const reference = parseReference(name);
  await using registry = new Registry(reference, 'pull,push', options);
  const record = store.imageRecord(image) ?? missingImage(image, store);
  const there = new Set<Digest>();
  const own = manifestOf(store, image, record.mediaType);
  const has = async ({ digest }: Descriptor, signal: AbortSignal | undefined): Promise<boolean> => {
    const answer = await registry.ask({ method: 'HEAD', url: registry.url(`blobs/${digest}`), expect: [200, 404], signal });
    await answer.body.dump();
    if (answer.statusCode === 200) there.add(digest);
    return answer.statusCode === 200;
  };
  await atOnce([...new Map(own.layers.map((layer) => [layer.digest, layer])).values()], blobsAtOnce, options.signal, async (layer, signal) => {
    await has(layer, signal);
  });
  const { manifest, bytes, digest } = portableManifest(store, image, there);
  if (reference.digest !== undefined && reference.digest !== digest) {
    throw new ImageError('ERR_CLOISTER_DIGEST', `the image is ${digest}, and is to be pushed as ${reference.digest}`, { step: 'push the image' });
  }
  const parts = new Map([...manifest.layers, manifest.config].map((part) => [part.digest, part]));
  await atOnce([...parts.values()], blobsAtOnce, options.signal, async (part, signal) => {
    if (there.has(part.digest) || (await has(part, signal))) options.onProgress?.({ digest: part.digest, doneBytes: part.size, totalBytes: part.size });
    else await upload(registry, () => blobOf(store, part.digest), part, { ...options, signal });
  });
  const answer = await registry.ask({
    method: 'PUT',
    url: registry.url(`manifests/${reference.tag ?? digest}`),
    headers: { 'content-type': manifest.mediaType, 'content-length': String(bytes.length) },
    body: () => bytes,
    expect: [201, 202],
    signal: options.signal,
  });
  await answer.body.dump();
}

/** In one piece. An upload that fails is begun anew: a session may be in any state. */
async function upload(registry: Registry, open: () => Readable, { digest, size }: Descriptor, { signal, onProgress }: TransferOptions): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const begun = await registry.ask({ method: 'POST', url: registry.url('blobs/uploads/'), headers: { 'content-length': '0' }, expect: [202], signal });
    await begun.body.dump();
    const location = [begun.headers['location'] ?? []].flat()[0] ?? '';
    const url = URL.canParse(location, registry.url('').href) ? new URL(location, registry.url('')) : undefined;
    // Somewhere else than https only where that was asked for.
    if (!url || (url.protocol === 'http:' && registry.url('').protocol !== 'http:')) {
      throw new ImageError('ERR_CLOISTER_REGISTRY', `the registry names no place to upload to: ${JSON.stringify(location.slice(0, 200))}`, {
        step: 'push the image',
      });
    }
    url.searchParams.set('digest', digest);
    try {
      const done = await registry.askOnce({
        method: 'PUT',
        url,
        headers: { 'content-type': 'application/octet-stream', 'content-length': String(size) },
        body: () => counted(open(), (doneBytes) => onProgress?.({ digest, doneBytes, totalBytes: size })),
        expect: [201],
        signal,
      });
      await done.body.dump();
      return;
    } catch (error) {
      signal?.throwIfAborted();
      if (attempt === mostAttempts || (error instanceof ImageError && error.code !== 'ERR_CLOISTER_REGISTRY')) throw error;
    }
  }
}

function counted(source: Readable, onBytes: (bytes: number) => void): Transform {
  let done = 0;
  const counter = new Transform({
    transform(chunk: Buffer, _encoding, next) {
      done += chunk.length;
      onBytes(done);
      next(null, chunk);
    },
  });
  source.on('error', (error) => counter.destroy(error));
  counter.on('close', () => source.destroy());
  return source.pipe(counter);
}
