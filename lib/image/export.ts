import { createWriteStream, existsSync } from 'node:fs';
import { constants, copyFile, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ImageError } from '../errors.js';
import { encodeHeader } from '../tree/tar-encode.js';
import { blockSize, padding } from '../tree/tar-entry.js';
import { type Digest, digestOf, hexOf } from './digest.js';
import { configurationOf, readBlob } from './image.js';
import { missingLayer } from './layer.js';
import { blobOf, tarOf } from './layer-tar.js';
import { layoutIndex, layoutMarker } from './layout.js';
import { portableManifest } from './portable-manifest.js';
import type { Workspace } from './workspace.js';

export const exportFormats = ['oci-layout', 'oci-archive', 'docker-archive'] as const;
export type ExportFormat = (typeof exportFormats)[number];

/** A file of an archive, or of a directory. */
interface File {
  readonly name: string;
  readonly size: number;
  readonly content: Uint8Array | { readonly blob: Digest } | { readonly tarOf: Digest };
}

export async function exportImage(workspace: Workspace, image: Digest, name: string | undefined, target: string, format: ExportFormat): Promise<void> {
  if (existsSync(target)) {
    throw new ImageError('ERR_CLOISTER_EXPORT', `${target} exists already; nothing is overwritten`, { step: 'export the image', path: target });
  }
  const files = format === 'docker-archive' ? dockerFiles(workspace, image, name) : ociFiles(workspace, image, name);
  // Beside the target, so that it appears there whole.
  const unfinished = join(dirname(target), `.${process.pid}-${hexOf(digestOf(workspace.path)).slice(0, 12)}.unfinished`);
  try {
    if (format === 'oci-layout') await writeDirectory(workspace, files, unfinished);
    else await pipeline(archive(workspace, files), createWriteStream(unfinished, { flags: 'wx' }));
    await rename(unfinished, target);
  } catch (cause) {
    await rm(unfinished, { recursive: true, force: true });
    const { errno, syscall } = cause as NodeJS.ErrnoException;
    if (cause instanceof ImageError || errno === undefined) throw cause;
    throw ImageError.ofErrno('ERR_CLOISTER_EXPORT', errno, { step: 'export the image', syscall, path: target, cause });
  }
}

function ociFiles({ store }: Workspace, image: Digest, name: string | undefined): File[] {
  const { bytes, manifest } = portableManifest(store, image);
  const blobs = new Map([manifest.config, ...manifest.layers].map((part) => [part.digest, part]));
  return [
    { name: 'oci-layout', size: layoutMarker.length, content: layoutMarker },
    ofBytes('index.json', layoutIndex({ bytes, mediaType: manifest.mediaType }, name)),
    ofBytes(`blobs/sha256/${hexOf(digestOf(bytes))}`, bytes),
    ...[...blobs.values()].map(({ digest, size }) => ({ name: `blobs/sha256/${hexOf(digest)}`, size, content: { blob: digest } })),
  ];
}

function dockerFiles({ store }: Workspace, image: Digest, name: string | undefined): File[] {
  const { manifest } = portableManifest(store, image);
  const config = readBlob(store, manifest.config.digest);
  const { diffIds } = configurationOf(store, manifest);
  const file = (diffId: Digest): string => `${hexOf(diffId)}.tar`;
  const configName = `${hexOf(manifest.config.digest)}.json`;
  // A tag is needed to find the image again with `docker load`.
  const tags = name === undefined ? null : [/:[^/]*$/.test(name) ? name : `${name}:latest`];
  return [
    ofBytes('manifest.json', Buffer.from(JSON.stringify([{ Config: configName, RepoTags: tags, Layers: diffIds.map(file) }]))),
    ofBytes(configName, config),
    ...[...new Set(diffIds)].map((diffId) => ({
      name: file(diffId),
      size: store.layerRecord(diffId)?.sizeBytes ?? missingLayer(diffId, store),
      content: { tarOf: diffId },
    })),
  ];
}

const ofBytes = (name: string, content: Uint8Array): File => ({ name, size: content.length, content });

async function writeDirectory({ store }: Workspace, files: readonly File[], directory: string): Promise<void> {
  await mkdir(join(directory, 'blobs/sha256'), { recursive: true });
  for (const { name, content } of files) {
    const path = join(directory, name);
    if (content instanceof Uint8Array) await writeFile(path, content);
    // A copy of its own (shared where the file system can): whoever has the layout may write to it.
    else if ('blob' in content) {
      if (existsSync(store.blob(content.blob))) await copyFile(store.blob(content.blob), path, constants.COPYFILE_FICLONE);
      else await pipeline(blobOf(store, content.blob), createWriteStream(path, { flags: 'wx' }));
    }
  }
}

async function* archive(workspace: Workspace, files: readonly File[]): AsyncGenerator<Uint8Array, void, undefined> {
  const directories = new Set(
    files.flatMap(({ name }) =>
      name
        .split('/')
        .slice(0, -1)
        .map((_, index, parts) => parts.slice(0, index + 1).join('/')),
    ),
  );
  for (const path of directories) yield header(path, 0, 'directory');
  for (const { name, size, content } of files) {
    yield header(name, size, 'file');
    if (content instanceof Uint8Array) yield content;
    else {
      let written = 0;
      for await (const chunk of await contentOf(workspace, content)) {
        written += (chunk as Buffer).length;
        yield chunk as Buffer;
      }
      if (written !== size)
        throw new ImageError('ERR_CLOISTER_STORE', `${name} has ${written} bytes and not ${size}; verify() tells more`, { step: 'export the image' });
    }
    yield Buffer.alloc(padding(size));
  }
  yield Buffer.alloc(2 * blockSize);
}

function header(path: string, size: number, type: 'file' | 'directory'): Buffer {
  const nothing = Buffer.alloc(0);
  const mode = type === 'file' ? 0o644 : 0o755;
  return encodeHeader({
    type,
    path: Buffer.from(path),
    mode,
    uid: 0,
    gid: 0,
    size,
    seconds: 0,
    nanoseconds: 0,
    target: nothing,
    major: 0,
    minor: 0,
    attributes: new Map(),
  });
}

async function contentOf({ store }: Workspace, content: { blob: Digest } | { tarOf: Digest }): Promise<Readable> {
  return 'blob' in content ? blobOf(store, content.blob) : await tarOf(store, content.tarOf);
}
