/** Asks the inside of a sandbox. Its answers are compared to those of the host: `askHost`. */

import type { Readable, Writable } from 'node:stream';
import { type IsolatedProcess, type Mount, type RunOptions, type RunResult, runIsolated, type SpawnOptions, spawnIsolated } from 'cloister';
import { fixturesDirectory, insideDirectory, insideFixture } from './fixtures.js';
import { Lines } from './lines.js';
import { type AnswersTo, parseAnswers, type Question, toArguments } from './questions.js';

export type * from './answers.js';
export { fixture, fixturesDirectory, insideFixture } from './fixtures.js';
export { askHost, askHostNow } from './host.js';
export { type AnswersTo, parseAnswer, type Question, toArguments } from './questions.js';

export type AskOptions = Omit<RunOptions, 'encoding'>;

/** The same options, with the fixtures bound read-only at /probe. */
export function withFixtures<const O extends SpawnOptions>(options: O): O & { mounts: readonly Mount[] } {
  const bind: Mount = { type: 'bind', source: fixturesDirectory(), target: insideDirectory, readonly: true };
  return { ...options, mounts: [...(options.mounts ?? []), bind] };
}

/** The answers of one probe that runs isolated, and how it ended. */
export async function askFully<const Q extends readonly Question[]>(
  questions: Q,
  options: AskOptions = {},
): Promise<{ answers: AnswersTo<Q>; result: RunResult }> {
  const result = await runIsolated(insideFixture('probe'), toArguments(questions), withFixtures(options));
  const { exitCode, signal, reason, stdout, stderr } = result;
  const ending = `exit code ${exitCode}, signal ${signal}, reason ${reason}\nstderr: ${stderr}`;
  return { answers: parseAnswers(questions, stdout, ending), result };
}

/** `const [ids, caps] = await ask(['ids', 'caps'])`. */
export async function ask<const Q extends readonly Question[]>(questions: Q, options?: AskOptions): Promise<AnswersTo<Q>> {
  return (await askFully(questions, options)).answers;
}

type WithOutput = Omit<SpawnOptions, 'stdio' | 'tty'>;
export interface StartedProbe {
  readonly process: IsolatedProcess<Writable, Readable, Readable>;
  /** What it prints: `await lines.until('ready')`, `parseAnswer('block', await lines.next())`. */
  readonly lines: Lines;
}

/** For verbs that stay, wait for signals, or answer more than once. */
export function startProbe(questions: readonly Question[], options: WithOutput = {}): StartedProbe {
  const process = spawnIsolated(insideFixture('probe'), toArguments(questions), withFixtures(options));
  return { process, lines: new Lines(process.stdout) };
}
