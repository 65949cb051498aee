import { optionError } from '../errors.js';
import * as check from '../spawn/validate.js';
import { parseBytes } from '../units.js';
import type { TransferOptions } from './types.js';

/** With the limit as a number. */
export interface Transfer extends TransferOptions {
  readonly sizeLimit?: number;
}

export function transferOptionsOf(value: unknown): Transfer {
  const options = check.record(value, 'options') as TransferOptions;
  check.onlyKeys(options, '', ['signal', 'onProgress', 'platform', 'auth', 'insecure', 'mirrors', 'sizeLimit']);
  const { signal, onProgress, platform, auth, insecure, mirrors, sizeLimit } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw optionError('signal', 'an AbortSignal', signal);
  if (onProgress !== undefined && typeof onProgress !== 'function') throw optionError('onProgress', 'a function', onProgress);
  if (platform !== undefined) {
    check.onlyKeys(check.record(platform, 'platform'), 'platform', ['os', 'architecture', 'variant']);
    for (const [key, text] of Object.entries(platform)) if (text !== undefined) check.text(text, `platform.${key}`);
  }
  if (insecure !== undefined) check.flag(insecure, 'insecure');
  if (mirrors !== undefined) check.list(mirrors, 'mirrors', check.text);
  if (auth !== undefined) checkAuth(auth);
  const { sizeLimit: _, ...rest } = options;
  return sizeLimit === undefined ? rest : { ...rest, sizeLimit: parseBytes(sizeLimit, 'sizeLimit') };
}

function checkAuth(auth: object): void {
  const keys = Object.keys(check.record(auth, 'auth'));
  if ('token' in auth) check.onlyKeys(auth, 'auth', ['token']);
  else if (keys.length !== 2) throw optionError('auth', '{ username, password } or { token }', keys.join());
  check.onlyKeys(auth, 'auth', ['token', 'username', 'password']);
  for (const [key, text] of Object.entries(auth)) {
    // What is said of a wrong secret must not show it.
    if (typeof text !== 'string' || /[\r\n\0]/.test(text)) throw optionError(`auth.${key}`, 'a string without line breaks', typeof text);
  }
}
