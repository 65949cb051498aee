import { pieceSize, type Sink } from './streams.js';

/** A queue of pieces in memory that two threads share: one of them puts in, the other one takes out. */
export interface Ring {
  /** As int32: how many pieces were put in, how many of them are done with, and the length of each that is there. */
  readonly state: SharedArrayBuffer;
  readonly pieces: SharedArrayBuffer;
}

const slots = 8;
const put = 0;
const done = 1;
const lengths = 2;
/** Instead of a count: the one that counts, or whoever was to, has gone. */
const broken = -1;

/** To be given two megabytes by the kernel takes longer than to read a small layer. */
const spare: Ring[] = [];
const mostSpare = 2;

export function takeRing(): Ring {
  return spare.pop() ?? { state: new SharedArrayBuffer(4 * (lengths + slots)), pieces: new SharedArrayBuffer(slots * pieceSize) };
}

/** When both ends are done with it. */
export function giveBack(ring: Ring): void {
  if (spare.length === mostSpare) return;
  new Int32Array(ring.state).fill(0);
  spare.push(ring);
}

/** Neither end waits for the other any more. */
export function breakRing({ state }: Ring): void {
  const counts = new Int32Array(state);
  for (const count of [put, done]) {
    Atomics.store(counts, count, broken);
    Atomics.notify(counts, count);
  }
}

export class RingEnd implements Sink {
  readonly #counts: Int32Array;
  readonly #pieces: SharedArrayBuffer;
  #number = 0;

  constructor({ state, pieces }: Ring) {
    this.#counts = new Int32Array(state);
    this.#pieces = pieces;
  }

  room(): Buffer {
    for (let taken = Atomics.load(this.#counts, done); taken === broken || this.#number - taken === slots; taken = Atomics.load(this.#counts, done)) {
      if (taken === broken) throw new Error('nobody takes any more of it');
      Atomics.wait(this.#counts, done, taken);
    }
    return Buffer.from(this.#pieces, (this.#number % slots) * pieceSize, pieceSize);
  }

  put(length: number): void {
    this.#counts[lengths + (this.#number++ % slots)] = length;
    // Not over the mark of a break.
    Atomics.compareExchange(this.#counts, put, this.#number - 1, this.#number);
    Atomics.notify(this.#counts, put);
  }

  end(): void {
    this.room();
    this.put(0);
  }
}

/** The next piece, good until the next call; undefined at the end, and when the ring is broken. */
export function piecesOf({ state, pieces }: Ring): () => Buffer | undefined {
  const counts = new Int32Array(state);
  let number = 0;
  return () => {
    if (number > 0) Atomics.compareExchange(counts, done, number - 1, number);
    Atomics.notify(counts, done);
    for (let there = Atomics.load(counts, put); there <= number; there = Atomics.load(counts, put)) {
      if (there === broken) return undefined;
      Atomics.wait(counts, put, there);
    }
    const slot = number++ % slots;
    const length = counts[lengths + slot] as number;
    return length === 0 ? undefined : Buffer.from(pieces, slot * pieceSize, length);
  };
}
