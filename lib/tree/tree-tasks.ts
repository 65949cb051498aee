import { native } from '../native.js';
import { assembleTar } from './assemble.js';
import { type ExtractRequest, extractTree } from './extract.js';
import { must, self } from './files.js';
import { findWhiteout } from './find-whiteout.js';
import type { OverlayPrefix } from './overlay-attributes.js';
import { packTree } from './pack.js';
import { emptyDirectory } from './remove.js';
import { piecesOf, type Ring } from './ring.js';
import { piecesIn } from './streams.js';
import type { TaskDescriptors } from './task.js';

// What runs for tree.ts in a thread or process of its own.

export type TreeRequest =
  | ({ readonly kind: 'extract'; readonly ring?: Ring | undefined } & ExtractRequest)
  | { readonly kind: 'pack'; readonly prefix: OverlayPrefix }
  | { readonly kind: 'assemble' }
  | { readonly kind: 'empty' }
  | { readonly kind: 'sync' }
  | { readonly kind: 'find whiteout'; readonly prefix: OverlayPrefix };

export function run(request: TreeRequest, { input, output, lent: [root, recipe, whole] }: TaskDescriptors): unknown {
  switch (request.kind) {
    case 'extract': {
      const pieces = request.ring ? piecesOf(request.ring) : piecesIn(input as number);
      return extractTree(pieces, root as number, request, recipe === undefined || whole === undefined ? undefined : { recipe, whole });
    }
    case 'assemble':
      return assembleTar(root as number, recipe as number, output as number);
    case 'pack':
      return packTree(root as number, output as number, request.prefix);
    case 'empty':
      return emptyDirectory(root as number, self);
    case 'sync':
      return must(native().files.syncFilesystem(root as number), 'syncfs', self);
    case 'find whiteout':
      return findWhiteout(root as number, self, request.prefix)?.toString('latin1');
  }
}
