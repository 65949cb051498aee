import type { Socket } from 'node:net';

/**
 * Two connections as one: what is read from one is written to the other, no faster than it takes it; the end of one direction is
 * handed on and the other stays open; a reset is handed on as a reset. Both must allow half-open connections.
 */
export function relay(one: Socket, other: Socket): void {
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

/** The peer reads ECONNRESET, not an end that could be taken for a whole answer. */
export function reset(socket: Socket): void {
  if (socket.destroyed) return;
  socket.on('error', () => {});
  socket.resetAndDestroy();
}
