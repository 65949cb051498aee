import { createReadStream, statSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { ImageError } from '../errors.js';
import type { Digest } from './digest.js';
import { type FoundImage, findImage, receiveImage } from './incoming-image.js';
import type { Descriptor } from './manifest.js';
import { onMirror, parseReference } from './reference.js';
import { Registry } from './registry.js';
import { findManifest, type RangeSource, registrySource } from './registry-source.js';
import { StoreLock } from './store-lock.js';
import type { Transfer } from './transfer-options.js';
import type { Workspace } from './workspace.js';

export async function pullImage(workspace: Workspace, name: string, options: Transfer): Promise<Digest> {
  const named = parseReference(name);
  const places = [...(options.mirrors ?? []).map((mirror, index) => onMirror(named, mirror, `mirrors[${index}]`)), named];
  const failures: unknown[] = [];
  for (const place of places) {
    const { auth: _, ...withoutAuth } = options;
    await using registry = new Registry(place, 'pull', place === named ? options : withoutAuth);
    try {
      return await pullFrom(workspace, registry, name, options);
    } catch (error) {
      options.signal?.throwIfAborted();
      // Where a mirror lacks it, or sends something else, the registry itself may still have it.
      if (place === named || !(error instanceof ImageError)) throw error;
      failures.push(error);
    }
  }
  throw failures.at(-1);
}

async function pullFrom(workspace: Workspace, registry: Registry, name: string, options: Transfer): Promise<Digest> {
  const { descriptor, bytes } = await findManifest(registry, options.signal);
  const source = registrySource(registry, new Map([[descriptor.digest, bytes]]));
  const found: FoundImage = await findImage(source, descriptor, options);
  const resuming = { ...source, layer: async (layer: Descriptor, signal: AbortSignal | undefined) => resumed(workspace, source.from, layer, signal) };
  await receiveImage(workspace, resuming, found, name, options);
  return found.digest;
}

/**
 * What an earlier pull has got of a blob, and then the rest. What comes is added to it, so that the next one can go on if this one is cut. If
 * somebody else pulls that blob just now, it is pulled twice.
 */
function resumed(workspace: Workspace, from: RangeSource, descriptor: Descriptor, signal: AbortSignal | undefined): Readable {
  const path = workspace.store.partial(descriptor.digest);
  async function* bytes(): AsyncGenerator<Buffer, void, undefined> {
    const lock = new StoreLock(workspace.store.lock);
    try {
      if (!lock.claimPartial(descriptor.digest)) {
        yield* from(descriptor, 0, signal) as AsyncIterable<Buffer>;
        return;
      }
      const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
      if (size > descriptor.size) await rm(path);
      const start = size > descriptor.size ? 0 : size;
      if (start > 0) yield* createReadStream(path, { highWaterMark: 2 ** 18 }) as AsyncIterable<Buffer>;
      const file = await open(path, 'a', 0o600);
      try {
        for await (const chunk of from(descriptor, start, signal) as AsyncIterable<Buffer>) {
          await file.writeFile(chunk);
          yield chunk;
        }
      } finally {
        await file.close();
      }
      // Complete: now it is good, and kept as a blob, or it is wrong, and must not be tried again.
      await rm(path);
    } finally {
      lock.close();
    }
  }
  return Readable.from(bytes(), { objectMode: false });
}
