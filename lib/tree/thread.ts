import { Worker } from 'node:worker_threads';
import type { Runner, TaskOrder } from './task.js';

// A thread for tasks. To start one, and to load its modules, takes longer than most tasks: one that has ended its task waits a while for the next.

/** Milliseconds. What uses layers uses several, with work of its own in between. */
const patience = 10_000;
/** A layer takes two. */
const most = 4;

interface Thread {
  readonly worker: Worker;
  /** Of the task that it works on. */
  heard: ((message: 'loaded' | 'done') => void) | undefined;
  ended: ((how: string) => void) | undefined;
  timer: NodeJS.Timeout | undefined;
}

const idle: Thread[] = [];

export function startThread(order: TaskOrder): Runner {
  const thread = idle.pop() ?? newThread();
  clearTimeout(thread.timer);
  thread.worker.ref();
  // A thread that is ended while it loads its modules leaves their files open: those descriptors are the process's, and nobody closes them.
  let loaded = false;
  let killed = false;
  // From then on it may be working on another task.
  let over = false;
  const ended = new Promise<string>((resolve) => {
    thread.ended = resolve;
    thread.heard = (message) => {
      loaded = true;
      if (killed) void thread.worker.terminate();
      else if (message === 'done') {
        over = true;
        keep(thread);
        resolve('done');
      }
    };
  });
  thread.worker.postMessage(order);
  return {
    ended,
    kill: () => {
      if (over) return;
      killed = true;
      if (loaded) void thread.worker.terminate();
    },
  };
}

function newThread(): Thread {
  // Not with the flags and the module of `node --input-type=module --eval`, say.
  const worker = new Worker(new URL('./task-main.js', import.meta.url), { execArgv: [], stdin: false, stdout: false, stderr: false });
  const thread: Thread = { worker, heard: undefined, ended: undefined, timer: undefined };
  let failed: Error | undefined;
  worker.on('message', (message) => thread.heard?.(message));
  worker.on('error', (error) => {
    failed = error;
  });
  worker.once('exit', (code) => {
    const at = idle.indexOf(thread);
    if (at >= 0) idle.splice(at, 1);
    thread.ended?.(failed ? String(failed.message) : `exit code ${code}`);
  });
  return thread;
}

function keep(thread: Thread): void {
  thread.heard = thread.ended = undefined;
  if (idle.length === most) {
    void thread.worker.terminate();
    return;
  }
  idle.push(thread);
  // Neither holds the process.
  thread.worker.unref();
  thread.timer = setTimeout(() => {
    idle.splice(idle.indexOf(thread), 1);
    void thread.worker.terminate();
  }, patience);
  thread.timer.unref();
}

/** For who counts what there is of this process. */
export async function endIdleThreads(): Promise<void> {
  await Promise.all(
    idle.splice(0).map(({ worker, timer }) => {
      clearTimeout(timer);
      return worker.terminate();
    }),
  );
}
