import * as k from '../plan/constants.js';
import type { Part } from './differences.js';
import { open, self } from './files.js';

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

/** Descriptors are open until the task ends. */
export function partsOf(orders: readonly PartOrder[], lent: readonly number[]): Part[] {
  return orders.map(({ target, base, upper, below, merged, byName = false, root }) => {
    const baseFd = lent[base] as number;
    return {
      target: Buffer.from(target),
      upper: upper === '' ? baseFd : open(baseFd, Buffer.from(upper), k.O_PATH | k.O_DIRECTORY, self),
      below: lent[below] as number,
      merged: merged === undefined ? undefined : (lent[merged] as number),
      byName,
      root,
    };
  });
}
