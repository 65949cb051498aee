import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../native.js';
import { flatKeyed } from './controllers/controller.js';
import type { Place } from './places.js';

// Who the OOM killer has taken, on v1. There is no file that tells of a whole subtree.

/** A directory of groups has as many links as children, and two; NaN: it is not of v1. */
export const mayHaveBelow = (links: number): boolean => links > 2;

/** Victims in groups below. v2 counts them in the groups above as well, v1 in their own group only (memcg_memory_event). */
export async function killsBelow(places: readonly Place[]): Promise<number> {
  const v1 = memoryOfV1(places);
  if (!v1) return 0;
  const entries = await readdir(v1.directory, { withFileTypes: true, recursive: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isDirectory()).map(({ parentPath, name }) => join(parentPath, name, 'memory.oom_control'));
  const texts = await native().readFiles(files);
  return texts.reduce((sum: number, text) => sum + (typeof text === 'string' ? (flatKeyed(text)['oom_kill'] ?? 0) : 0), 0);
}

const memoryOfV1 = (places: readonly Place[]): Place | undefined =>
  places.find(({ hierarchy, controllers }) => hierarchy.version === 'v1' && controllers.includes('memory'));

/** Of v1, with those below. */
export async function oomKills(places: readonly Place[]): Promise<number> {
  const directory = memoryOfV1(places)?.directory ?? '';
  const [text, links] = await native().readFiles([join(directory, 'memory.oom_control'), directory]);
  return (typeof text === 'string' ? (flatKeyed(text)['oom_kill'] ?? 0) : 0) + (mayHaveBelow(Number(links)) ? await killsBelow(places) : 0);
}
