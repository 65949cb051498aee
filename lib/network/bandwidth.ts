import { optionError } from '../errors.js';
import { onlyKeys, record } from '../spawn/validate.js';
import type { Request } from './netlink/message.js';
import { addImpairment, addTokenBucket, type Place } from './netlink/qdisc.js';

export interface Bandwidth {
  /** Bytes a second that the sandbox sends. */
  readonly egressBps?: number | undefined;
  /** Bytes a second that it receives. */
  readonly ingressBps?: number | undefined;
  /** Added to each packet that it sends. */
  readonly delayMs?: number | undefined;
  /** Of the packets that it sends. */
  readonly lossPercent?: number | undefined;
}

export function checkBandwidth(value: unknown, option: string): Bandwidth {
  const given = record(value, option);
  onlyKeys(given, option, ['egressBps', 'ingressBps', 'delayMs', 'lossPercent']);
  const number = (key: string, takes: string, fits: (number: number) => boolean): number | undefined => {
    const found = given[key];
    if (found === undefined) return undefined;
    if (typeof found !== 'number' || !Number.isFinite(found) || !fits(found)) throw optionError(`${option}.${key}`, takes, found);
    return found;
  };
  const rate = (key: string): number | undefined => number(key, 'bytes a second, at least 1000', (rate) => Number.isInteger(rate) && rate >= 1000);
  return {
    egressBps: rate('egressBps'),
    ingressBps: rate('ingressBps'),
    delayMs: number('delayMs', 'milliseconds, at most an hour', (delay) => delay >= 0 && delay <= 3_600_000),
    lossPercent: number('lossPercent', 'a number from 0 to 100', (loss) => loss >= 0 && loss <= 100),
  };
}

/** What the end of the pair on our side sends is what the sandbox receives. */
export function limitReceiving(link: number, { ingressBps }: Bandwidth): Request[] {
  return ingressBps === undefined ? [] : [tokenBucket({ link, handle: 1 }, ingressBps)];
}

export function limitSending(link: number, { egressBps, delayMs = 0, lossPercent = 0 }: Bandwidth): Request[] {
  const impaired = delayMs > 0 || lossPercent > 0;
  return [
    ...(impaired ? [addImpairment({ link, handle: 1 }, delayMs, lossPercent)] : []),
    ...(egressBps === undefined ? [] : [tokenBucket(impaired ? { link, handle: 2, below: 1 } : { link, handle: 1 }, egressBps)]),
  ];
}

/**
 * The bucket holds what may go at once: 5 ms, and two packets at least, as one that does not fit is never sent. What has to wait
 * longer than 50 ms (or behind twenty packets) is dropped, so that senders notice.
 */
function tokenBucket(place: Place, rate: number): Request {
  const burst = Math.max(3200, Math.ceil(rate / 200));
  return addTokenBucket(place, rate, burst, burst + Math.max(32_000, Math.ceil(rate / 20)));
}
