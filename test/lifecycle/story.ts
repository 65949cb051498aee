/** What happened to an IsolatedProcess, in order; and what of it the machine still has. */
import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import type { IsolatedProcess } from 'cloister';
import { type Census, leaks } from '../helpers/census.js';

/** Everything that it tells, to its 'close'. */
export async function story(child: IsolatedProcess): Promise<string[]> {
  const told: string[] = [];
  const name = (error: unknown) => (error as { code?: string }).code ?? String(error);
  child.on('spawn', () => told.push('spawn'));
  child.on('exit', (code, signal) => told.push(`exit ${code} ${signal}`));
  child.on('error', (error) => told.push(`error ${name(error)}`));
  child.on('close', (code, signal) => told.push(`close ${code} ${signal}`));
  child.spawned.then(
    () => told.push('spawned'),
    (error) => told.push(`spawned rejects ${name(error)}`),
  );
  child.exited.then(
    ({ reason }) => told.push(`exited ${reason}`),
    (error) => told.push(`exited rejects ${name(error)}`),
  );
  // Not `once` of node:events, which rejects at an 'error'.
  await new Promise((resolve) => child.on('close', resolve));
  return told;
}

/** Found by an environment variable, on the host too, whoever is their parent by now. */
export class Marker {
  readonly value = `cloister-test-${randomUUID()}`;
  readonly env = { CLOISTER_MARKER: this.value };

  /** Those that are not zombies: a zombie has no environment. */
  pids(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => this.#marks(pid))
      .map(Number);
  }

  processes(): string[] {
    return this.pids().map((pid) => `pid ${pid}`);
  }

  #marks(pid: string): boolean {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`CLOISTER_MARKER=${this.value}`);
    } catch {
      return false;
    }
  }
}

/** Runs `act` on each, so many at a time. */
export async function eachOf<T>(items: Iterable<T>, atOnce: number, act: (item: T) => Promise<void>): Promise<void> {
  const left = items[Symbol.iterator]();
  const work = async () => {
    for (let next = left.next(); !next.done; next = left.next()) await act(next.value);
  };
  await Promise.all(Array.from({ length: atOnce }, work));
}

/**
 * What has become more, and by more than the few things that are made ahead for the next sandbox: each of so many spawns
 * would have left one.
 */
export function piles(before: Census, after: Census): string[] {
  return leaks(before, after).filter((line) => Number(/: (\d+) more/.exec(line)?.[1]) >= manySpawns / 2);
}
export const manySpawns = 20;
