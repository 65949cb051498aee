/** What a spawn says of wrong limits: at once, before any system call. */
import { spawnIsolated } from 'cloister';

/** The message of the TypeError, or 'accepted'. */
export function refusal(limits: unknown): string {
  try {
    // A program that is not there: were it accepted, nothing would come of it.
    spawnIsolated('/no/such/program', [], { cgroup: limits as never }).on('error', () => undefined);
    return 'accepted';
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return error.message;
  }
}

/** Each of these for one limit. */
export const refusals = (key: string, ...values: unknown[]): string[] => values.map((value) => refusal({ [key]: value }));
