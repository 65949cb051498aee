import { Readable } from 'node:stream';
import { ImageError } from '../errors.js';
import { type Digest, digestOf, isDigest, mismatch } from './digest.js';
import type { ContentSource } from './incoming-image.js';
import { type Descriptor, mostJsonBytes, objectOf, parseJson } from './manifest.js';
import { indexTypes, manifestTypes } from './media-types.js';
import { type Asked, backoff, failure, isTransientError, pause, type Registry } from './registry.js';

const accept = [...manifestTypes, ...indexTypes].join(', ');
const mostCuts = 5;

/** What the tag or digest of the reference is at this registry now. */
export async function findManifest(registry: Registry, signal: AbortSignal | undefined): Promise<{ descriptor: Descriptor; bytes: Buffer }> {
  const { tag, digest } = registry.reference;
  const url = registry.url(`manifests/${digest ?? tag}`);
  const { bytes, answer } = await registry.json({ method: 'GET', url, headers: { accept }, expect: [200], signal }, mostJsonBytes);
  const found = digestOf(bytes);
  const announced = [answer.headers['docker-content-digest'] ?? []].flat()[0];
  const wanted = digest ?? (isDigest(announced) ? announced : found);
  if (found !== wanted) throw mismatch('the manifest', wanted, found);
  const type = [answer.headers['content-type'] ?? []].flat()[0]?.split(';')[0]?.trim() ?? '';
  // Some registries of files only know JSON.
  const inside = [...manifestTypes, ...indexTypes].includes(type) ? undefined : objectOf(parseJson(bytes, 'the manifest'), 'the manifest')['mediaType'];
  return { descriptor: { mediaType: typeof inside === 'string' ? inside : type, digest: found, size: bytes.length }, bytes };
}

/** `known`: documents that have been fetched already. */
export function registrySource(registry: Registry, known: ReadonlyMap<Digest, Uint8Array>): ContentSource & { from: RangeSource } {
  const from: RangeSource = (descriptor, start, signal) => Readable.from(blobFrom(registry, descriptor, start, signal), { objectMode: false });
  return {
    from,
    document: async ({ digest, mediaType, size }, signal) => {
      const kind = [...manifestTypes, ...indexTypes].includes(mediaType) ? 'manifests' : 'blobs';
      const headers = kind === 'manifests' ? { accept } : {};
      return known.get(digest) ?? (await registry.json({ method: 'GET', url: registry.url(`${kind}/${digest}`), headers, expect: [200], signal }, size)).bytes;
    },
    layer: async (descriptor, signal) => from(descriptor, 0, signal),
  };
}

/** The bytes of a blob from there on. */
export type RangeSource = (descriptor: Descriptor, start: number, signal: AbortSignal | undefined) => Readable;

/** A connection that is cut is made anew, for the bytes that are missing. RFC 9110, 14. */
async function* blobFrom(
  registry: Registry,
  { digest, size }: Descriptor,
  start: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer, void, undefined> {
  let position = start;
  for (let cuts = 0; position < size; ) {
    const headers = position === 0 ? {} : { range: `bytes=${position}-` };
    const asked: Asked = { method: 'GET', url: registry.url(`blobs/${digest}`), headers, expect: [200, 206], signal };
    const answer = await registry.ask(asked);
    try {
      let skip = answer.statusCode === 206 ? position - beginOf(answer.headers['content-range'], position) : position;
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        const skipped = Math.min(skip, chunk.length);
        skip -= skipped;
        const rest = chunk.subarray(skipped);
        if (rest.length === 0) continue;
        position += rest.length;
        cuts = 0;
        yield rest;
      }
      // Without an error: a server that does not say how much there is.
      if (position < size && ++cuts === mostCuts) throw mismatch('a layer', `${size} bytes`, `${position}`);
    } catch (cause) {
      signal?.throwIfAborted();
      if (cause instanceof ImageError) throw cause;
      if (++cuts === mostCuts || !isTransientError(cause)) throw failure(asked, cause, true);
      await pause(backoff(cuts), signal);
    } finally {
      answer.body.destroy();
    }
  }
}

function beginOf(header: string | string[] | undefined, expected: number): number {
  const begin = /^bytes (\d+)-/.exec([header ?? []].flat()[0] ?? '')?.[1];
  if (begin === undefined || Number(begin) > expected) {
    throw new ImageError('ERR_CLOISTER_REGISTRY', `the registry was asked for bytes from ${expected} on, and sent others`, { step: 'resume the download' });
  }
  return Number(begin);
}
