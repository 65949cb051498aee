import { setImmediate as nextTurn, setTimeout as rest } from 'node:timers/promises';
import { inspect } from 'node:util';
import { endIdleThreads } from '../../dist/tree/thread.js';
import { patience } from './repeats.js';

export interface SettledOptions {
  /** Milliseconds after which it fails: by default before a test's own time is over, which would not say why. */
  deadline?: number;
  what?: string;
}

function isSettled(value: unknown): boolean {
  return Array.isArray(value) ? value.length === 0 : value === true;
}

/**
 * Waits until `check` gives `true` or an empty list (as `difference` does). For what tells nobody that it has happened:
 * a namespace that the kernel tears down, a handle that closes in the next turn of the loop. Fails with the last value.
 */
export async function settled(
  check: () => boolean | readonly string[] | Promise<boolean | readonly string[]>,
  { deadline = 4_000, what = 'it' }: SettledOptions = {},
): Promise<void> {
  const end = performance.now() + deadline * patience;
  for (let turn = 0; ; turn += 1) {
    const value = await check();
    if (isSettled(value)) return;
    // They wait for more to do, for longer than anybody here waits.
    if (turn === 0) await endIdleThreads();
    if (performance.now() > end) throw new Error(`${what} did not settle in ${deadline} ms: ${inspect(value)}`);
    // A few turns of the loop are enough for our own handles; after them another process needs the core more.
    await (turn < 20 ? nextTurn() : rest(5));
  }
}
