import { isMainThread, parentPort } from 'node:worker_threads';
import { IsolationError } from '../errors.js';
import { native } from '../native.js';
import { ByteSink } from './streams.js';
import type { Outcome, TaskOrder } from './task.js';

// The beginning of a thread that does one task after the other, or of a process in other namespaces that does one and ends: task.ts.

async function perform(order: TaskOrder): Promise<void> {
  for (const fd of [order.descriptors.result, order.descriptors.input, order.descriptors.output]) {
    if (fd !== undefined) native().files.preparePipe(fd, 2 ** 20);
  }
  const outcome = await outcomeOf(order);
  const result = new ByteSink(order.descriptors.result);
  try {
    result.write(Buffer.from(JSON.stringify(outcome)));
    result.flush();
  } catch {
    // Nobody listens any more.
  }
}

async function outcomeOf(order: TaskOrder): Promise<Outcome> {
  try {
    // Others may be in the namespaces that this process is in: none of them is to look into its memory.
    if (isMainThread) await (await import('./unreadable.js')).becomeUnreadable();
    const { run } = (await import(order.module)) as { run: (request: unknown, descriptors: TaskOrder['descriptors']) => unknown };
    parentPort?.postMessage('loaded');
    return { value: await run(order.request, order.descriptors) };
  } catch (error) {
    return { error: plain(error as Error) };
  }
}

function plain(error: Error): NonNullable<Outcome['error']> {
  const { name, message } = error;
  if (!(error instanceof IsolationError)) return { name, message: `${message}\n${error.stack ?? ''}`, fields: {} };
  return { name, message, fields: { ...error } };
}

if (isMainThread) await perform(JSON.parse(process.argv[2] ?? '') as TaskOrder);
else {
  parentPort?.on('message', async (order: TaskOrder) => {
    await perform(order);
    parentPort?.postMessage('done');
  });
}
