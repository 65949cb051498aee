import { statSync } from 'node:fs';
import { Readable } from 'node:stream';
import { IsolationError, optionError } from '../errors.js';
import { caller } from '../host/caller.js';
import { native } from '../native.js';
import * as check from '../spawn/validate.js';
import type { ApplyOutcome, ApplyRequest } from '../tree/apply-changes.js';
import { type ChangeLine, changeOf } from '../tree/list-changes.js';
import { startTask } from '../tree/task.js';
import { overlayPrefix } from '../tree/tree.js';
import type { RootSettings } from './make-root.js';
import type { RootReading } from './shared-root.js';
import type { ApplyReport, Change } from './types.js';
import { listChanges, orderOf } from './writable-layer.js';

export interface ApplyOptions {
  readonly filter?: ((change: Change) => boolean | Promise<boolean>) | undefined;
  readonly dryRun?: boolean | undefined;
}

export function applyOptionsOf(options: ApplyOptions): ApplyOptions {
  check.record(options, 'options');
  check.onlyKeys(options, '', ['filter', 'dryRun']);
  const { filter, dryRun } = options;
  if (filter !== undefined && typeof filter !== 'function') throw optionError('filter', 'a function of a change', filter);
  if (dryRun !== undefined) check.flag(dryRun, 'dryRun');
  return { filter, dryRun };
}

/** What was written to targets by this root, and when: by device and inode of the target. */
export type Marks = Map<string, Record<string, string>>;

/** `reading`: undefined where nothing has ever been written. */
export async function applyChanges(
  reading: RootReading | undefined,
  settings: RootSettings,
  target: string,
  { filter, dryRun = false }: ApplyOptions,
  marks: Marks,
): Promise<ApplyReport> {
  const fd = native().openFile(target);
  try {
    const where = { syscall: 'open', step: 'apply changes to', path: target };
    if (fd < 0) throw IsolationError.ofErrno('ERR_CLOISTER_STEP', fd, where);
    const identity = identityOf(`/proc/self/fd/${fd}`);
    if (!identity.isDirectory) throw IsolationError.ofErrno('ERR_CLOISTER_STEP', -20, where);
    if (!reading) return { applied: [], skipped: [], conflicts: [] };
    const { made, below } = reading;
    const skipped: Change[] = [];
    const accepted: string[] = [];
    for (const change of await listChanges(made, below)) {
      if (filter && !(await filter(change))) skipped.push(change);
      else accepted.push(`${JSON.stringify(lineOf(change))}\n`);
    }
    const known = marks.get(identity.key) ?? {};
    const isLayer = (settings.layers ?? ['/']).some((layer) => identityOf(layer).key === identity.key);
    const { parts, lent } = orderOf(made, below);
    const request: ApplyRequest = {
      prefix: overlayPrefix(),
      parts,
      map: made.owner ? undefined : made.ids.map,
      keepOwners: caller().privileged,
      dryRun,
      since: isLayer ? { ...made.since, marks: known } : undefined,
    };
    const input = Readable.from(accepted, { objectMode: false });
    const module = new URL('../tree/apply-changes.js', import.meta.url);
    const outcome = await startTask<ApplyOutcome>({ module, request, lent: [...lent, fd], owner: made.owner, input }).done;
    marks.set(identity.key, Object.assign(known, Object.fromEntries(outcome.marks)));
    return {
      applied: outcome.applied.map(changeOf),
      skipped,
      conflicts: outcome.conflicts.map(({ change, reason }) => ({ change: changeOf(change), reason })),
    };
  } finally {
    if (fd >= 0) native().close(fd);
  }
}

const lineOf = ({ kind, type, pathBytes }: Change): ChangeLine => [kind, type, pathBytes.toString('latin1', 1)];

function identityOf(path: string): { key: string; isDirectory: boolean } {
  const status = statSync(path, { bigint: true, throwIfNoEntry: false });
  return { key: `${status?.dev}:${status?.ino}`, isDirectory: status?.isDirectory() ?? false };
}
