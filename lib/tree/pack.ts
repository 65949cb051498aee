import * as files from './files.js';
import { sameIds } from './ids-inside.js';
import { join } from './names.js';
import type { OverlayPrefix } from './overlay-attributes.js';
import { ByteSink } from './streams.js';
import { TarWriter } from './tar-writer.js';
import { whiteoutName } from './whiteouts.js';

// A directory in overlayfs's form into a layer's tar: what extract.ts makes, back again.

export function packTree(root: number, sinkFd: number, prefix: OverlayPrefix): void {
  const sink = new ByteSink(sinkFd);
  const writer = new TarWriter(sink, sameIds);
  writer.add(root, files.self, Buffer.from('.'), files.statusOfOpen(root, files.self));
  packDirectory(writer, root, files.self, prefix);
  writer.end();
}

function packDirectory(writer: TarWriter, directory: number, path: Buffer, prefix: OverlayPrefix): void {
  if (files.attribute(directory, `${prefix}opaque`, path)?.toString() === 'y') writer.opaque(path);
  const entries = files.namesIn(directory, path).flatMap((name) => {
    const status = files.statusOf(directory, name, join(path, name));
    if (!status) return [];
    return [{ name, status, told: files.isWhiteout(status) ? whiteoutName(name) : name }];
  });
  for (const { name, status } of inOrder(entries)) {
    if (files.isWhiteout(status)) {
      writer.whiteout(join(path, name));
      continue;
    }
    writer.add(directory, name, join(path, name), status);
    if (status.type !== 'directory') continue;
    const below = files.openDirectory(directory, name, join(path, name));
    try {
      packDirectory(writer, below, join(path, name), prefix);
    } finally {
      files.close(below);
    }
  }
}

/** By the names that the tar will have. */
export function inOrder<T extends { readonly told: Buffer }>(entries: readonly T[]): T[] {
  return [...entries].sort((a, b) => Buffer.compare(a.told, b.told));
}
