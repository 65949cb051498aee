import type { Readable } from 'node:stream';
import { optionError } from '../errors.js';
import { IsolatedProcess } from './process.js';
import { type Settings, settingsOf } from './settings.js';
import { isPiped } from './stdio-settings.js';
import type { IsolatedResult, Run, RunOptions, RunResult, SpawnOptions } from './types.js';

/** `(command, options)` and `(command, args, options)` alike, as child_process takes them. */
export function argumentsOf<O>(rest: readonly unknown[]): { args: unknown; options: O } {
  const [first, second] = rest;
  if (Array.isArray(first) || first === undefined || first === null) return { args: first ?? undefined, options: (second ?? {}) as O };
  if (typeof first === 'string') throw optionError('args', "an array, such as ['-l']", first);
  return { args: undefined, options: first as O };
}

const defaultOutputLimit = '64M';

/**
 * Runs a program in a sandbox to its end and collects what it writes. Rejects with an `IsolationError` if it could not be
 * started, with `TypeError` for wrong options; a program that fails, is killed or cut is a result.
 *
 * Privileges and errors as `spawnIsolated`.
 */
export const runIsolated: Run = (async (command: string, ...rest: unknown[]) => {
  const { args, options } = argumentsOf<RunOptions>(rest);
  if (options === null || typeof options !== 'object') throw optionError('options', 'an object', options);
  const { input, encoding, ...spawnOptions } = options;
  checkRun(input, encoding);
  const limited: SpawnOptions = { ...spawnOptions };
  if (limited.outputLimit === undefined && (limited.stdio === undefined || limited.tty)) limited.outputLimit = defaultOutputLimit;
  let settings = settingsOf(command, args, limited);
  if (settings.outputLimit === undefined && (isPiped(settings.stdio[1]) || isPiped(settings.stdio[2]))) {
    settings = settingsOf(command, args, { ...limited, outputLimit: defaultOutputLimit });
  }
  return collect(settings, input, encoding ?? 'utf8');
}) as Run;

export function checkRun(input: unknown, encoding: unknown): void {
  if (input !== undefined && typeof input !== 'string' && !(input instanceof Uint8Array) && typeof (input as Readable | null)?.pipe !== 'function') {
    throw optionError('input', 'a string, bytes or a readable stream', input);
  }
  if (encoding !== undefined && encoding !== 'buffer' && !Buffer.isEncoding(encoding as string))
    throw optionError('encoding', "an encoding of Buffer, or 'buffer'", encoding);
}

export async function collect(settings: Settings, input: RunOptions['input'], encoding: BufferEncoding | 'buffer'): Promise<RunResult<string | Buffer>> {
  const child = new IsolatedProcess(settings);
  const output: Buffer[][] = [[], []];
  for (const [index, stream] of [child.stdout, child.stderr].entries()) stream?.on('data', (chunk: Buffer) => output[index]?.push(chunk));
  feed(child, input);
  const closed = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const result: IsolatedResult = await child.exited;
  await closed;
  const text = (index: number): string | Buffer => {
    const bytes = Buffer.concat(output[index] as Buffer[]);
    return encoding === 'buffer' ? bytes : bytes.toString(encoding);
  };
  return { ...result, stdout: text(0), stderr: text(1), stdoutTruncated: child.wasTruncated(1), stderrTruncated: child.wasTruncated(2) };
}

function feed(child: IsolatedProcess, input: RunOptions['input']): void {
  const { stdin } = child;
  if (!stdin) return;
  // A program need not read its input: EPIPE is its choice, not an error.
  stdin.on('error', () => {});
  if (input === undefined) stdin.end();
  else if (typeof input === 'string' || input instanceof Uint8Array) stdin.end(input);
  else {
    input.on('error', (error) => stdin.destroy(error));
    stdin.on('close', () => input.unpipe(stdin));
    input.pipe(stdin);
  }
}
