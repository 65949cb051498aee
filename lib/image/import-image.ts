import { existsSync, statSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { ImageError } from '../errors.js';
import { compressionOf, decompressor, peek, toldOf } from '../tree/compression.js';
import { extract } from '../tree/tree.js';
import { type Digest, Meter } from './digest.js';
import { importDockerArchive } from './docker-archive.js';
import { findImage, type ReceiveOptions, receiveImage } from './incoming-image.js';
import { bothEnds } from './incoming-layer.js';
import { chooseInLayout, layoutSource } from './layout.js';
import { openRegular } from './local-file.js';
import type { Workspace } from './workspace.js';

export async function importImage(
  workspace: Workspace,
  source: string,
  name: string | undefined,
  options: ReceiveOptions,
): Promise<{ digest: Digest; name: string | undefined }> {
  const { path, reference } = located(source);
  const directory = statSync(path).isDirectory() ? path : await unpacked(workspace, path, options);
  // Docker's newer archives are both: the layout has the digests.
  if (existsSync(join(directory, 'oci-layout')) && existsSync(join(directory, 'index.json'))) {
    const { descriptor, name: there } = await chooseInLayout(directory, reference, options);
    const content = layoutSource(directory);
    const found = await findImage(content, descriptor, options);
    await receiveImage(workspace, content, found, name ?? there, options);
    return { digest: found.digest, name: name ?? there };
  }
  if (existsSync(join(directory, 'manifest.json'))) return await importDockerArchive(workspace, directory, reference, name, options);
  throw new ImageError('ERR_CLOISTER_IMAGE', `${path} is no image: it has neither oci-layout and index.json, nor manifest.json`, {
    step: 'read the image',
    path,
    hint: 'A tar of files, without a manifest, is a layer: import() takes it.',
  });
}

/** 'path', or 'path:reference'. */
function located(source: string): { path: string; reference: string | undefined } {
  for (let colon = source.length; colon > 0; colon = source.lastIndexOf(':', colon - 1)) {
    const path = resolve(source.slice(0, colon));
    if (existsSync(path)) return { path, reference: source.slice(colon + 1) || undefined };
  }
  throw new ImageError('ERR_CLOISTER_NOT_FOUND', `there is no file or directory ${source}`, { step: 'read the image', path: source });
}

/** An archive is read where it has been unpacked: what comes first in it (a layer) is understood by what comes last (a manifest). */
async function unpacked(workspace: Workspace, path: string, { signal, sizeLimit }: ReceiveOptions): Promise<string> {
  const { file } = await openRegular(path, true);
  const stream = file.createReadStream({ highWaterMark: 2 ** 18 });
  try {
    const { head, whole } = await peek(stream, 6);
    const compression = compressionOf(head);
    if (compression === undefined) throw new ImageError('ERR_CLOISTER_IMAGE', `${path} is compressed by xz or bzip2`, { step: 'read the archive', path });
    const directory = workspace.newPath();
    await mkdir(directory);
    const meter = new Meter();
    const undo = await decompressor(compression);
    const fed = (undo ? pipeline(whole, undo, meter) : pipeline(whole, meter)).catch((cause) => Promise.reject(toldOf(compression, cause, path)));
    await bothEnds(extract(meter, directory, { signal, sizeLimit }), fed, signal);
    return directory;
  } finally {
    stream.destroy();
    await file.close();
  }
}
