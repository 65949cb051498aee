import type { Socket } from 'node:net';
import type { NativePace } from '../../types/native.js';
import { native } from '../native.js';
import type { Bandwidth } from './bandwidth.js';

// How fast what passes this process may pass, where no link is there to be shaped: all connections and datagrams of a sandbox together.

export interface Paces {
  /** Of what it sends. */
  readonly egress: NativePace | undefined;
  /** Of what it receives. */
  readonly ingress: NativePace | undefined;
}

export function pacesOf({ egressBps, ingressBps }: Bandwidth): Paces {
  return {
    egress: egressBps === undefined ? undefined : native().pace(egressBps),
    ingress: ingressBps === undefined ? undefined : native().pace(ingressBps),
  };
}

/** Of a datagram: one that comes too early is lost, as one for which a link has no room. */
export function mayGo(pace: NativePace | undefined, bytes: number): boolean {
  if (pace === undefined) return true;
  if (native().paceWait(pace) > 0) return false;
  native().spend(pace, bytes);
  return true;
}

/** As `from.pipe(to)`, at a pace, until the function that it gives is called; `from` is paused then. */
export function pipeAtPace(from: Socket, to: Socket, pace: NativePace): () => void {
  let timer: NodeJS.Timeout | undefined;
  const goOn = (): void => {
    if (to.writableNeedDrain) to.once('drain', goOn);
    else from.resume();
  };
  const onData = (chunk: Buffer): void => {
    to.write(chunk);
    native().spend(pace, chunk.length);
    const wait = native().paceWait(pace);
    if (wait === 0 && !to.writableNeedDrain) return;
    from.pause();
    timer = setTimeout(goOn, wait).unref();
  };
  const onEnd = (): void => void to.end();
  from.on('data', onData).on('end', onEnd);
  return () => {
    clearTimeout(timer);
    to.off('drain', goOn);
    from.off('data', onData).off('end', onEnd).pause();
  };
}
