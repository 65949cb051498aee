/** Stores, tars and images for one test. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Layer, LayerStore } from 'cloister';
import { onTestFinished } from 'vitest';
import { smallRoot, type Tree, temporary } from '../integration/trees.js';

export async function newStore(directory: string = join(temporary(), 'store')): Promise<LayerStore> {
  const store = await LayerStore.open(directory);
  onTestFinished(() => store[Symbol.asyncDispose]());
  return store;
}

/** The path of a tar of these files; the same files make the same bytes. */
export function tarOf(tree: Tree, ...options: string[]): string {
  return packed(temporary(tree), ...options);
}

/** One that a program can run from. */
export const rootTar = (tree: Tree = {}): string => packed(smallRoot(tree));

function packed(directory: string, ...options: string[]): string {
  const tar = join(temporary(), 'layer.tar');
  const same = ['--sort=name', '--mtime=@1700000000', '--owner=0', '--group=0', '--numeric-owner', '--format=posix', '--pax-option=delete=atime,delete=ctime'];
  execFileSync('tar', [...same, ...options, '-C', directory, '-cf', tar, '.']);
  return tar;
}

export const sha256 = (bytes: string | Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
export const digestOfFile = (path: string): string => sha256(readFileSync(path));

export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const result: T[] = [];
  for await (const item of items) result.push(item);
  return result;
}

export const digests = (layers: readonly Layer[]): string[] => layers.map(({ digest }) => digest);

/** One line of a refusal, for a snapshot: without what differs each time. */
export async function told(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'done';
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    return `${code}: ${message.split('\n')[0]}`;
  }
}

/** Numbers that follow from a seed: mulberry32, in the public domain. */
export function randomOf(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}
