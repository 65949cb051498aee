import { IsolationError } from './errors.js';

/** A part of the contract that this version does not have: an error that says so, never a quiet nothing. */
export function unavailable(what: string): Promise<never> {
  return Promise.reject(unavailable.error(what));
}
unavailable.error = (what: string): IsolationError =>
  new IsolationError('ERR_CLOISTER_UNAVAILABLE', `${what} is not in this version of cloister`, {
    hint: 'The contract names it, so that programs can be written against it; docs/roadmap.md says what is here.',
  });
