import { readdirSync, statSync } from 'node:fs';
import { native } from '../native.js';

/** A moment, by the clock that inodes are stamped with. */
export interface Moment {
  readonly seconds: number;
  readonly nanoseconds: number;
  /** Of a stamp that equals it: it is from later. Else that cannot be told. */
  readonly inclusive: boolean;
}

const nothing = Buffer.alloc(0);

/**
 * When a root began, to know what has changed in its layers since. `base` is the directory of its writable layer. `kept`: one that may have been
 * used before; then it is when that was made.
 */
export function beginningOf(base: number, kept: string | undefined): Moment {
  if (kept !== undefined && readdirSync(kept).length > 0) {
    const { birthtimeNs } = statSync(kept, { bigint: true });
    return { seconds: Number(birthtimeNs / 1_000_000_000n), nanoseconds: Number(birthtimeNs % 1_000_000_000n), inclusive: false };
  }
  // Times are those of the last clock tick, but for an inode that somebody has looked at: that gets the exact time, and no later stamp on any
  // file will be earlier (multigrain timestamps, since 6.13: Documentation/filesystems/multigrain-ts.rst). Before, a tick is all there is.
  const before = stamp(base);
  void native().files.setMode(base, before.mode);
  const after = stamp(base);
  const inclusive = after.seconds !== before.seconds || after.nanoseconds !== before.nanoseconds;
  return { seconds: after.seconds, nanoseconds: after.nanoseconds, inclusive };
}

function stamp(fd: number): { mode: number; seconds: number; nanoseconds: number } {
  const found = new Float64Array(16);
  void native().files.status(fd, nothing, found);
  return { mode: (found[0] as number) & 0o7777, seconds: found[9] as number, nanoseconds: found[10] as number };
}
