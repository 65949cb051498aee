import { ImageError } from '../errors.js';
import { printable } from './names.js';

/** A tree or a tar that is not taken; the entry's name is in the message. */
export function layerError(path: Uint8Array | undefined, what: string, hint?: string): ImageError {
  const where = path === undefined ? '' : `${printable(path)}: `;
  return new ImageError('ERR_CLOISTER_LAYER', `not taken as a layer: ${where}${what}`, { hint, ...(path ? { path: printable(path) } : {}) });
}
