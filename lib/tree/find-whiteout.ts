import { checkDepth } from './depth.js';
import * as files from './files.js';
import { components, join } from './names.js';
import type { OverlayPrefix } from './overlay-attributes.js';

/** Where a layer first takes something of the layers below away, in overlayfs's form; undefined: it only adds. */
export function findWhiteout(directory: number, path: Buffer, prefix: OverlayPrefix): Buffer | undefined {
  if (files.attribute(directory, `${prefix}opaque`, path)?.toString() === 'y') return path;
  for (const name of files.namesIn(directory, path)) {
    const inside = join(path, name);
    const status = files.statusOf(directory, name, inside);
    if (status && files.isWhiteout(status)) return inside;
    if (status?.type !== 'directory') continue;
    checkDepth(components(inside).length, inside);
    const below = files.openDirectory(directory, name, inside);
    try {
      const found = findWhiteout(below, inside, prefix);
      if (found) return found;
    } finally {
      files.close(below);
    }
  }
  return undefined;
}
