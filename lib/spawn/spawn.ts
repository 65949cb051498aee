import { checked, native } from '../native.js';
import { explanationOf } from '../plan/explain.js';
import { prepare } from './prepare.js';
import { IsolatedProcess } from './process.js';
import { argumentsOf } from './run.js';
import { settingsOf } from './settings.js';
import type { Streams } from './streams.js';
import type { Explanation, Spawn, SpawnOptions } from './types.js';

/**
 * Starts a program in namespaces, a root and with ids of its own, and returns at once. Defaults are the safe ones: docs/api.md.
 *
 * Throws `TypeError` (ERR_CLOISTER_OPTION) for a wrong option, before any system call. What the host refuses becomes an 'error'
 * event and the rejection of `spawned` and `exited`: an `IsolationError` with one of the codes of docs/errors.md. Needs
 * CAP_SYS_ADMIN, or unprivileged user namespaces; with `fallback: 'landlock'` neither, docs/fallback.md.
 */
export const spawnIsolated: Spawn = ((command: string, ...rest: unknown[]) => {
  const { args, options } = argumentsOf<SpawnOptions>(rest);
  return new IsolatedProcess(settingsOf(command, args, options));
}) as Spawn;

/** The plan of such a spawn: every system call with its arguments, before anything runs. Rejects as `spawnIsolated` would. */
export async function explain(command: string, args?: readonly string[], options: SpawnOptions = {}): Promise<Explanation> {
  const settings = settingsOf(command, args, options);
  const nothing = (): number => checked(native().openFile('/dev/null'), 'open', 'make the streams');
  const terminal = settings.tty ? { theirs: nothing() } : undefined;
  const prepared = await prepare(settings, { child: settings.stdio.map(nothing), terminal: terminal as Streams['terminal'] }, true);
  try {
    return explanationOf(prepared.plan);
  } finally {
    prepared.discard();
  }
}
