import { join } from 'node:path';
import { describe, ImageError } from '../errors.js';
import { listed } from '../text.js';
import { type Digest, digestOf, hexOf } from './digest.js';
import type { ContentSource, ReceiveOptions } from './incoming-image.js';
import { inside, openRegular, readRegular } from './local-file.js';
import { type Descriptor, mostJsonBytes, objectOf, parseIndex, parseJson } from './manifest.js';
import { indexTypes, ociIndex } from './media-types.js';
import { choose, fits, ownPlatform } from './platform.js';

// An image layout of the OCI: image-spec, image-layout.md.

/** containerd writes the whole reference there. */
const nameKeys = ['org.opencontainers.image.ref.name', 'io.containerd.image.name'] as const;

/** What an index entry is called. */
export const namesOf = ({ annotations }: Descriptor): string[] => nameKeys.flatMap((key) => annotations?.[key] ?? []);

export function layoutSource(directory: string): ContentSource {
  const path = (digest: Digest): string => inside(directory, `blobs/sha256/${hexOf(digest)}`);
  return {
    document: async ({ digest, size }) => readRegular(path(digest), size),
    layer: async ({ digest }) => (await openRegular(path(digest))).file,
  };
}

/** The entry of the layout's index that is meant, and what it is called there. */
export async function chooseInLayout(
  directory: string,
  reference: string | undefined,
  options: ReceiveOptions,
): Promise<{ descriptor: Descriptor; name: string | undefined }> {
  const marker = objectOf(parseJson(readRegular(join(directory, 'oci-layout'), mostJsonBytes), 'oci-layout'), 'oci-layout');
  const version = marker['imageLayoutVersion'];
  if (typeof version !== 'string' || !/^1\./.test(version)) {
    throw new ImageError('ERR_CLOISTER_IMAGE', `the layout's version is ${describe(version)}, not 1`, { step: 'read the layout', path: directory });
  }
  const { manifests } = parseIndex(readRegular(join(directory, 'index.json'), mostJsonBytes), ociIndex);
  const named = reference === undefined ? manifests : manifests.filter((entry) => entry.digest === reference || namesOf(entry).includes(reference));
  const distinct = [...new Map(named.map((entry) => [entry.digest, entry])).values()];
  if (distinct.length === 0) {
    throw new ImageError('ERR_CLOISTER_NOT_FOUND', reference === undefined ? 'the layout has no image' : `the layout has no image called '${reference}'`, {
      step: 'read the layout',
      path: directory,
      hint: `It has ${listed(manifests.map(called))}.`,
    });
  }
  if (distinct.length === 1) return found(distinct[0] as Descriptor);
  // One image for several platforms, or several images?
  const wanted = { ...ownPlatform(), ...options.platform };
  const fitting = distinct.filter(
    ({ mediaType, platform }) => !indexTypes.includes(mediaType) && platform?.architecture !== undefined && fits(wanted, platform),
  );
  if (distinct.every(({ mediaType, platform }) => !indexTypes.includes(mediaType) && platform?.architecture !== undefined) && fitting.length <= 1) {
    return found(choose(distinct, options.platform));
  }
  throw new ImageError('ERR_CLOISTER_AMBIGUOUS', `the layout has several images: ${listed(distinct.map(called))}`, {
    step: 'read the layout',
    path: directory,
    hint: "Say which by 'path:name', or 'path:sha256:…'.",
  });
}

function found(descriptor: Descriptor): { descriptor: Descriptor; name: string | undefined } {
  return { descriptor, name: namesOf(descriptor)[0] };
}

const called = (entry: Descriptor): string => namesOf(entry)[0] ?? entry.digest;

export const layoutMarker = Buffer.from('{"imageLayoutVersion":"1.0.0"}');

export function layoutIndex(manifest: { bytes: Uint8Array; mediaType: string }, name: string | undefined): Buffer {
  const entry = {
    mediaType: manifest.mediaType,
    digest: digestOf(manifest.bytes),
    size: manifest.bytes.length,
    ...(name === undefined ? {} : { annotations: { 'org.opencontainers.image.ref.name': name } }),
  };
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: ociIndex, manifests: [entry] }));
}
