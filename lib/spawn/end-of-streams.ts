import type { Duplex, Readable, Writable } from 'node:stream';

/**
 * Calls back when all that a process that has ended said has been read, and its streams are closed. What nobody has begun to read is read and
 * thrown away, as child_process does.
 */
export function whenStreamsEnd(stdio: readonly (Writable | Readable | Duplex | null)[], ended: () => void): void {
  const streams = new Set(stdio.slice(1));
  let open = 0;
  // After those who wait for `exited`.
  const end = (): unknown => open === 0 && setImmediate(ended);
  for (const stream of streams) {
    if (!stream || stream.destroyed) continue;
    open++;
    stream.once('close', () => {
      open--;
      end();
    });
  }
  // After those who wait for `exited`: they may begin to read only now.
  setImmediate(() => {
    for (const stream of streams) {
      const readable = stream as Readable | null;
      if (readable?.readableFlowing === null && readable.listenerCount('readable') === 0) readable.resume();
    }
  });
  end();
}
