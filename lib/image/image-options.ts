import { optionError } from '../errors.js';
import * as check from '../spawn/validate.js';
import { isDigest } from './digest.js';
import { imageConfigOf } from './manifest.js';
import type { ImageConfig } from './types.js';

export function imageName(value: unknown, option: string): string {
  const name = check.text(value, option);
  // A digest is looked up as one.
  if (name === '' || name.length > 1024 || isDigest(name)) throw optionError(option, 'a name of at most 1024 characters that is no digest', value);
  return name;
}

export function imageConfig(value: unknown): ImageConfig {
  check.onlyKeys(check.record(value, 'config'), 'config', [
    'Env',
    'Entrypoint',
    'Cmd',
    'User',
    'WorkingDir',
    'StopSignal',
    'ExposedPorts',
    'Volumes',
    'Labels',
  ]);
  try {
    return imageConfigOf(value, 'config');
  } catch (error) {
    throw optionError('config', `the config object of an OCI image: ${(error as Error).message}`, value);
  }
}
