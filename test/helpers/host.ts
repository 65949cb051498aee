/** Asks the probe directly on the host, to compare with, or to learn what this machine can do. */
import { type SpawnSyncOptions, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fixture } from './fixtures.js';
import { type AnswersTo, parseAnswers, type Question, toArguments } from './questions.js';

export interface HostOptions {
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  uid?: number;
  gid?: number;
  input?: string;
}

function endingOf(code: number | null, signal: NodeJS.Signals | null, stderr: string): string {
  return `on the host: exit code ${code}, signal ${signal}\nstderr: ${stderr}`;
}

/** `const [ids] = await askHost(['ids'])`. */
export async function askHost<const Q extends readonly Question[]>(questions: Q, { input = '', ...options }: HostOptions = {}): Promise<AnswersTo<Q>> {
  const child = spawn(fixture('probe'), toArguments(questions), { ...options, stdio: 'pipe' });
  // A probe that does not read its input may be gone before it is written.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  return parseAnswers(questions, stdout, endingOf(child.exitCode, child.signalCode, stderr));
}

/** The same, synchronously: for what must be known while tests are being collected. */
export function askHostNow<const Q extends readonly Question[]>(questions: Q, options: HostOptions = {}): AnswersTo<Q> {
  const spawnOptions: SpawnSyncOptions & { encoding: 'utf8' } = { ...options, encoding: 'utf8' };
  const { stdout, stderr, status, signal, error } = spawnSync(fixture('probe'), toArguments(questions), spawnOptions);
  if (error) throw error;
  return parseAnswers(questions, stdout, endingOf(status, signal, stderr));
}
