import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import type { Native } from '../types/native.js';
import { IsolationError } from './errors.js';

const require = createRequire(import.meta.url);
let loaded: Native | undefined;

/**
 * The addon, loaded when first used: importing cloister works anywhere, using it elsewhere than on Linux is one clear error.
 */
export function native(): Native {
  loaded ??= load();
  return loaded;
}

function load(): Native {
  if (process.platform !== 'linux') {
    throw new IsolationError('ERR_CLOISTER_PLATFORM', `cloister needs Linux: namespaces are the kernel's, and this is ${process.platform}`);
  }
  // Found through our own name, so that lib/, dist/ and a bundle that keeps us external all agree on the root.
  const root = dirname(require.resolve('cloister/package.json'));
  try {
    return require('node-gyp-build')(root) as Native;
  } catch (cause) {
    throw new IsolationError('ERR_CLOISTER_ADDON', `the addon of cloister does not load: ${(cause as Error).message}`, {
      cause,
      hint:
        'Possible solutions: run `npm rebuild cloister` (needs Python, make and a C++20 compiler); on a musl distribution other ' +
        'than Alpine set LIBC=musl; in a bundle mark cloister as external.',
    });
  }
}

/** The result of a native call, or a throw that names the system call. */
export function checked<T>(result: T | number, syscall: string, step: string): T {
  if (typeof result === 'number' && result < 0) throw IsolationError.ofErrno('ERR_CLOISTER_STEP', result, { syscall, step });
  return result as T;
}
