import * as k from '../plan/constants.js';
import type { Part } from './differences.js';
import { close, open, self } from './files.js';

/** A part of a root as a task is told of it: numbers are indices of lent descriptors. */
export interface PartOrder {
  readonly target: string;
  readonly base: number;
  /** The upper directory's name in it; '' if it is that itself. */
  readonly upper: string;
  readonly below: number;
  readonly merged: number | undefined;
  readonly byName?: boolean | undefined;
  readonly root: Part['root'];
}

/** One after the other: each has descriptors that are open until the next is asked for. The task may be a thread, whose end closes nothing. */
export function* partsOf(orders: readonly PartOrder[], lent: readonly number[]): Generator<Part, void, undefined> {
  for (const { target, base, upper, below, merged, byName = false, root } of orders) {
    const baseFd = lent[base] as number;
    const fd = upper === '' ? baseFd : open(baseFd, Buffer.from(upper), k.O_PATH | k.O_DIRECTORY, self);
    try {
      yield {
        target: Buffer.from(target),
        upper: fd,
        below: lent[below] as number,
        merged: merged === undefined ? undefined : (lent[merged] as number),
        byName,
        root,
      };
    } finally {
      if (fd !== baseFd) close(fd);
    }
  }
}
