import { constants } from 'node:os';
import { describe, ImageError } from '../errors.js';
import { harmless } from '../text.js';
import type { Image } from './image.js';

/** What an image's config says of a program that runs in it, where the caller says nothing. image-spec, config.md. */
export interface SpawnDefaults {
  readonly env: Readonly<Record<string, string>>;
  readonly user: string | undefined;
  readonly cwd: string | undefined;
  readonly killSignal: NodeJS.Signals | undefined;
}

export function imageDefaults({ config, name, digest, layers }: Image): SpawnDefaults {
  const refuse = (key: string, takes: string, got: string): never => {
    throw new ImageError('ERR_CLOISTER_IMAGE', `the config of ${harmless(name ?? digest)} has ${key} ${describe(got)}, which has to be ${takes}`, {
      step: 'read the image',
      hint: 'Say it yourself in the options of the spawn.',
    });
  };
  if (layers.length === 0)
    throw new ImageError('ERR_CLOISTER_ROOTFS', `the image ${harmless(name ?? digest)} has no layers, so no files`, { step: 'make the root' });
  const env: Record<string, string> = {};
  for (const entry of config.Env ?? []) {
    const equals = entry.indexOf('=');
    if (equals > 0)
      Object.defineProperty(env, entry.slice(0, equals), { value: entry.slice(equals + 1), enumerable: true, configurable: true, writable: true });
  }
  const { User: user, WorkingDir: cwd } = config;
  if (user !== undefined && !/^[^:\0]+(:[^:\0]+)?$/.test(user)) refuse('User', "'name', 'name:group', or numbers", user);
  if (cwd !== undefined && !cwd.startsWith('/')) refuse('WorkingDir', 'an absolute path', cwd);
  return { env, user, cwd, killSignal: signalOf(config.StopSignal) };
}

/** 'SIGTERM', 'TERM' or '15'. A real-time signal has no name in Node: then it is SIGKILL, as without an image. */
function signalOf(text: string | undefined): NodeJS.Signals | undefined {
  if (text === undefined) return undefined;
  const wanted = /^\d+$/.test(text) ? Number(text) : text.toUpperCase().replace(/^(?!SIG)/, 'SIG');
  const found = Object.entries(constants.signals).find(([name, number]) => name === wanted || number === wanted);
  return found?.[0] as NodeJS.Signals | undefined;
}
