/** Runs a snippet in a Node process of its own, to see what is left of it however it ends. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { repository } from './fixtures.js';
import { Lines } from './lines.js';
import { patience } from './repeats.js';

export interface ChildOptions {
  /** `process.argv.slice(1)` of the snippet. */
  args?: readonly string[];
  env?: NodeJS.ProcessEnv;
  nodeOptions?: readonly string[];
  /** A program that runs Node: ['unshare', '--net']. */
  through?: readonly string[];
  uid?: number;
  gid?: number;
  input?: string;
  /** Milliseconds after which the child is killed and the test fails. */
  deadline?: number;
}
export interface KillOptions extends ChildOptions {
  /** A line of its stdout; it is killed when it has printed that. Never printed: an error. */
  killAt?: string | RegExp;
  killSignal?: NodeJS.Signals;
}
export interface ChildOutcome {
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}
export interface StartedChild {
  readonly pid: number;
  readonly lines: Lines;
  /** The child alone, not what it has started. */
  kill(signal?: NodeJS.Signals): void;
  readonly ended: Promise<ChildOutcome>;
}

function collect(stream: Readable): () => string {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString();
}

/** The snippet is an ES module, and may `import … from 'cloister'`, the built one. */
export function startChild(script: string, options: ChildOptions = {}): StartedChild {
  const { args = [], env = {}, nodeOptions = [], through = [], input = '', deadline: usual = 30_000, ...ids } = options;
  const deadline = usual * patience;
  // Run in the repository: a package may import itself by name.
  const [program = '', ...words] = [...through, process.execPath, ...nodeOptions, '--input-type=module', '--eval', script, '--', ...args];
  const child = spawn(program, words, {
    cwd: repository,
    env: { ...process.env, ...env },
    stdio: 'pipe',
    ...ids,
  });
  if (child.pid === undefined) throw new Error(`${process.execPath} cannot be started`);
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const lines = new Lines(child.stdout);
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
  return { pid: child.pid, lines, kill: (signal = 'SIGKILL') => void child.kill(signal), ended: outcome() };

  async function outcome(): Promise<ChildOutcome> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
      // A sandbox that outlives it may hold its pipes.
      child.stdout.destroy();
      child.stderr.destroy();
    }, deadline);
    await once(child, 'close');
    clearTimeout(timer);
    const printed = { stdout: stdout(), stderr: stderr() };
    if (late) throw new Error(`the child, or what it started, was there after ${deadline} ms: ${JSON.stringify(printed)}`);
    return { exitCode: child.exitCode, signal: child.signalCode, ...printed };
  }
}

/** The whole life of such a child, ended by itself or at a line of its output. */
export async function inChild(script: string, options: KillOptions = {}): Promise<ChildOutcome> {
  const { killAt, killSignal = 'SIGKILL', ...rest } = options;
  const { lines, kill, ended } = startChild(script, rest);
  if (killAt === undefined) return await ended;
  try {
    // Together: a child that is late must not reject before it is waited for.
    await Promise.race([lines.until(killAt), ended.then(() => lines.until(killAt))]);
  } catch (cause) {
    throw new Error(`it was to be killed at ${killAt}: ${JSON.stringify(await ended)}`, { cause });
  }
  kill(killSignal);
  return await ended;
}
