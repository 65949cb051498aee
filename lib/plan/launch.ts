import { checked, native } from '../native.js';
import type { PlanBuilder } from './builder.js';
import * as k from './constants.js';
import { explainFailure } from './failure.js';

/** A child of a plan's, which has executed. */
export interface LaunchedChild {
  /** Resolves at its end, with what is known of that. */
  readonly ended: Promise<string>;
  kill(): void;
  /** Whether the event loop waits for its end; it does from the start. */
  setRef(on: boolean): void;
}

/** Takes the plan's descriptors. Rejects if the child does not come to execve, when it has been reaped. */
export function launchChild(plan: PlanBuilder): Promise<LaunchedChild> {
  const encoded = plan.encode();
  const pipe = checked(native().pipe(), 'pipe2', 'make the report pipe') as [number, number];
  return new Promise((resolve, reject) => {
    let tellEnd: (how: string) => void;
    const ended = new Promise<string>((settle) => {
      tellEnd = settle;
    });
    let failure: Error | undefined;
    const child = new (native().Process)(
      encoded,
      plan.slots(),
      pipe,
      false,
      (failed) => {
        if (failed) {
          failure = explainFailure(plan, failed);
          // A child that did not come to execve is reaped before anybody hears of it.
          if (child.pidfd() < 0) reject(failure);
        } else resolve({ ended, kill: () => void child.signal(k.SIGKILL), setRef: (on) => child.setRef(on) });
      },
      (code, signal) => {
        if (failure) reject(failure);
        tellEnd(signal === 0 ? `exit code ${code}` : `signal ${signal}`);
      },
    );
  });
}
