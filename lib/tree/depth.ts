import { layerError } from './layer-error.js';

/**
 * Levels of a tree that are open at once. Each takes up to four descriptors, and a process may have no more than 1024 in all: a tree that a
 * program has made on purpose must not take them from whatever else is going on. A layer has no more, so that what is taken can be read.
 */
export const deepest = 200;

/** `path`: of a directory that is this many levels below the root. */
export function checkDepth(levels: number, path: Uint8Array, hint?: string): void {
  if (levels > deepest) throw layerError(path, `more than ${deepest} directories are in each other`, hint);
}
