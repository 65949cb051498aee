import type { Socket } from 'node:net';
import type { NativePace, NativeRelays } from '../../types/native.js';
import { checked, native } from '../native.js';

let relays: NativeRelays | undefined;
const ends = new Map<number, () => void>();

export interface Relayed {
  /** What has been read from the first before. */
  readonly said?: Buffer | undefined;
  readonly onEnd?: () => void;
  /** Of what comes from it. */
  readonly paceOfOne?: NativePace | undefined;
  readonly paceOfOther?: NativePace | undefined;
}

/**
 * Two connections as one: what is read from one is written to the other, no faster than it takes it; the end of one direction is
 * handed on and the other stays open; a reset is handed on as a reset. A thread does it (csrc/core/pump.h), with descriptors of its own: both
 * sockets are destroyed. Without descriptors for it they are carried here, or reset where they have a pace. All that was written to them must be on
 * its way, and neither been ended.
 */
export function relay(one: Socket, other: Socket, { said = Buffer.alloc(0), onEnd = () => {}, paceOfOne, paceOfOther }: Relayed = {}): void {
  const fds: number[] = [];
  try {
    for (const socket of [one, other]) fds.push(secondDescriptor(socket));
    relays ??= new (native().Relays)(tell);
  } catch {
    for (const fd of fds) native().close(fd);
    onEnd();
    if (paceOfOne || paceOfOther) {
      reset(one);
      reset(other);
    } else carryHere(one, other, said);
    return;
  }
  const read = [Buffer.concat([said, waitingIn(one)]), waitingIn(other)] as const;
  for (const socket of [one, other]) socket.destroy();
  const number = relays.add(...(fds as [number, number]), ...read, paceOfOne, paceOfOther);
  if (number < 0) onEnd();
  else ends.set(number, onEnd);
}

/** There are no descriptors left for copies, or one has gone. */
function carryHere(one: Socket, other: Socket, said: Buffer): void {
  if (one.destroyed || other.destroyed) {
    reset(one);
    reset(other);
    return;
  }
  if (said.length > 0) other.write(said);
  connect(one, other);
  connect(other, one);
}

function connect(from: Socket, to: Socket): void {
  from.pipe(to);
  from.on('error', () => reset(to));
  from.on('close', () => {
    // An end that was read has been handed on by the pipe, and what is to be written still may be.
    if (!from.readableEnded) reset(to);
  });
}

function tell(numbers: readonly number[]): void {
  for (const number of numbers) {
    ends.get(number)?.();
    ends.delete(number);
  }
}

/** What Node has read and nobody has taken. */
function waitingIn(socket: Socket): Buffer {
  const chunks: Buffer[] = [];
  for (let chunk = socket.read() as Buffer | null; chunk !== null; chunk = socket.read() as Buffer | null) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** With it the connection stays when Node closes its own. */
function secondDescriptor(socket: Socket): number {
  const { _handle } = socket as unknown as { _handle: { fd: number } | null };
  return checked(native().duplicate(_handle?.fd ?? -1, 0), 'fcntl', 'carry a connection') as number;
}

/** The peer reads ECONNRESET, not an end that could be taken for a whole answer. */
export function reset(socket: Socket): void {
  if (socket.destroyed) return;
  socket.on('error', () => {});
  try {
    socket.resetAndDestroy();
  } catch {
    // ERR_INVALID_HANDLE_TYPE: a unix socket has no resets.
    socket.destroy();
  }
}
