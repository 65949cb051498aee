import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream';
import { ImageError, IsolationError } from '../errors.js';
import { checked, native } from '../native.js';
import type { Owner } from '../rootfs/ordinary-owner.js';
import { startHelper } from './helper-process.js';
import { startThread } from './thread.js';

// Work on a whole tree is some system calls for each of its entries, and a thread of its own makes them one after the other: that is many
// times faster than a promise for each in libuv's pool, and holds neither the event loop nor that pool. Where an ordinary user's own files
// can only be read by root of its user namespace (other ids, no permissions), the same code runs in a short-lived process there:
// a thread cannot enter a user namespace (setns(2)). Bytes go through pipes in both cases, so nothing is ever held in memory.

export interface TaskOrder {
  /** URL of a module that exports `run(request, descriptors)`; what that returns, or the promise of it, is the outcome. */
  readonly module: string;
  readonly request: unknown;
  readonly descriptors: TaskDescriptors;
}

export interface TaskDescriptors {
  readonly result: number;
  readonly input: number | undefined;
  readonly output: number | undefined;
  /** Those that were lent, in their order. */
  readonly lent: readonly number[];
}

/** What a task says at its end. */
export interface Outcome {
  readonly value?: unknown;
  readonly error?: { readonly name: string; readonly message: string; readonly fields: Readonly<Record<string, unknown>> };
}

export interface TaskOptions {
  readonly module: URL;
  readonly request: unknown;
  /** Open until the task has ended. */
  readonly lent: readonly number[];
  /** Whose namespaces it runs in; undefined: in a thread of ours. */
  readonly owner: Owner | undefined;
  readonly input?: Readable | number | undefined;
  readonly output?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface Task<T> {
  /** What it writes. Destroying it ends the task. */
  readonly output: Readable | undefined;
  /** Settles when nothing of it runs any more. */
  readonly done: Promise<T>;
  /** Ends it; `done` rejects with the reason. */
  end(reason: unknown): void;
  /** It ends by itself, when it sees that nothing more comes in; `done` rejects with the reason. To start another thread takes longer. */
  starve(reason: unknown): void;
}

export interface Runner {
  /** Resolves at its end, with what is known of that. */
  readonly ended: Promise<string>;
  kill(): void;
}

export function startTask<T>(options: TaskOptions): Task<T> {
  const { signal, input } = options;
  signal?.throwIfAborted();
  const pipes = openPipes(typeof input === 'object', options.output === true);
  const order: TaskOrder = {
    module: options.module.href,
    request: options.request,
    descriptors: { result: pipes.result[1], input: typeof input === 'number' ? input : pipes.input?.[0], output: pipes.output?.[1], lent: options.lent },
  };
  const theirs = [pipes.result[1], pipes.input?.[0], pipes.output?.[1]].filter((fd) => fd !== undefined);
  const result = new Socket({ fd: native().handOver(pipes.result[0]), readable: true, writable: false });
  const output = pipes.output && new Socket({ fd: native().handOver(pipes.output[0]), readable: true, writable: false });
  const feed = pipes.input && new Socket({ fd: native().handOver(pipes.input[1]), readable: false, writable: true });
  let failure: { reason: unknown } | undefined;
  let runner: Runner | undefined;
  const starve = (reason: unknown): void => {
    failure ??= { reason };
    feed?.destroy();
  };
  const end = (reason: unknown): void => {
    // First the pipes: a thread that waits in one can only be ended by that.
    starve(reason);
    output?.destroy();
    runner?.kill();
  };
  const onAbort = (): void => end(signal?.reason);
  signal?.addEventListener('abort', onAbort, { once: true });

  const run = async (): Promise<T> => {
    let text = '';
    let how = '';
    try {
      result.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      result.on('error', () => {});
      const drained = new Promise<void>((resolve) => result.once('close', () => resolve()));
      let fed: Promise<void> | undefined;
      if (feed && typeof input === 'object') fed = feedTask(input, feed, end);
      try {
        runner = options.owner ? await startHelper(order, options.owner) : startThread(order);
        if (failure) runner.kill();
        how = await runner.ended;
      } finally {
        for (const fd of theirs) native().close(fd);
      }
      await drained;
      feed?.destroy();
      await fed;
    } catch (error) {
      failure ??= { reason: error };
      result.destroy();
      end(error);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
    if (failure && !text.startsWith('{"error"')) throw failure.reason;
    if (text === '')
      throw failure?.reason ?? new IsolationError('ERR_CLOISTER_STEP', `work on a tree was ended before its end (${how})`, { step: 'work on a tree' });
    const outcome = JSON.parse(text) as Outcome;
    if (failure) throw failure.reason;
    if (outcome.error) throw revived(outcome.error);
    return outcome.value as T;
  };
  const done = run();
  done.catch(() => {});
  output?.once('close', () => {
    if (!output.readableEnded) end(new IsolationError('ERR_CLOISTER_STEP', 'the stream was destroyed before its end', { step: 'work on a tree' }));
  });
  return { output, done, end, starve };
}

function openPipes(input: boolean, output: boolean): { result: [number, number]; input: [number, number] | undefined; output: [number, number] | undefined } {
  const made: [number, number][] = [];
  const pipe = (): [number, number] => {
    const ends = checked(native().pipe(), 'pipe2', 'work on a tree') as [number, number];
    made.push(ends);
    return ends;
  };
  try {
    return { result: pipe(), input: input ? pipe() : undefined, output: output ? pipe() : undefined };
  } catch (error) {
    for (const fd of made.flat()) native().close(fd);
    throw error;
  }
}

/** A task that has failed has closed its end: that it could not be fed any more is not the reason. */
function feedTask(source: Readable, feed: Socket, end: (reason: unknown) => void): Promise<void> {
  return new Promise((resolve) => {
    pipeline(source, feed, (error) => {
      // Those before it in another pipeline of its may have failed, and this one only hears of the end.
      const reason = [error, source.errored].find((each) => each && !tellsTheEnd(each));
      if (reason) end(reason);
      resolve();
    });
  });
}

const tellsTheEnd = ({ code }: NodeJS.ErrnoException): boolean => code === 'EPIPE' || code === 'ECONNRESET' || code === 'ERR_STREAM_PREMATURE_CLOSE';

function revived({ name, message, fields }: NonNullable<Outcome['error']>): Error {
  const { code, hint, ...rest } = fields as { code?: `ERR_CLOISTER_${string}`; hint?: string };
  if (code === undefined) return new Error(`work on a tree has failed: ${name}: ${message}`);
  // The hint is in the message already.
  const bare = hint !== undefined && message.endsWith(`\n  ${hint}`) ? message.slice(0, -hint.length - 3) : message;
  return new (name === 'ImageError' ? ImageError : IsolationError)(code, bare, { ...rest, hint });
}

/** What a task writes; throws what it fails with. The task has ended when this has. */
export async function* outputOf(task: Task<unknown>): AsyncGenerator<Buffer, void, undefined> {
  try {
    try {
      yield* task.output as AsyncIterable<Buffer>;
    } catch {
      // The task says why.
    }
    await task.done;
  } finally {
    task.end(new Error('nobody reads any more'));
    await task.done.catch(() => {});
  }
}
