import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { caller } from '../host/caller.js';

/** A directory for upper layers of our own, of mode 0700. */
export function makeDiskUpper(): string {
  // In a directory that anybody may write to, only a new one is ours: mkdtemp(3) makes it with mode 0700.
  if (!caller().privileged) return mkdtempSync(join(tmpdir(), 'cloister-upper-'));
  mkdirSync('/var/lib/cloister', { recursive: true, mode: 0o700 });
  return mkdtempSync('/var/lib/cloister/upper-');
}
