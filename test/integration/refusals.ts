/** What a refused promise says. */
import { IsolationError } from 'cloister';
import { expect } from 'vitest';

export async function refusal(promise: Promise<unknown>): Promise<IsolationError> {
  const error = await promise.then(
    (value) => ({ value }),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(IsolationError);
  return error as IsolationError;
}

/** The whole message, with what is this machine's own replaced. */
export async function saying(promise: Promise<unknown>, ...directories: string[]): Promise<string> {
  const { message } = await refusal(promise);
  return plainly(message, ...directories);
}

/** Which call opens a directory depends on whether we are root. */
export function plainly(message: string, ...directories: string[]): string {
  const text = message.replace(/\((open_tree|openat)\)/, '(open)');
  return directories.reduce((rest, directory, index) => rest.replaceAll(directory, `DIR${index || ''}`), text);
}
