// How packets wait to be sent: tc(8), linux/pkt_sched.h, linux/rtnetlink.h.

import { encodeAttributes, NLM_F_CREATE, NLM_F_EXCL, type Request, text, u32, u64 } from './message.js';

const RTM_NEWQDISC = 36;
const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TC_H_ROOT = 0xffffffff;
const TCA_TBF_PARMS = 1;
const TCA_TBF_RATE64 = 4;
const TCA_TBF_BURST = 6;
const TC_LINKLAYER_ETHERNET = 1;
const TCA_NETEM_LATENCY64 = 10;

/** 1: is 0x10000 */
const handleOf = (major: number): number => (major << 16) >>> 0;

/** Where it is put: at the top of what a link sends, or below the first class of another one. */
export interface Place {
  /** Index of the link. */
  readonly link: number;
  readonly handle: number;
  readonly below?: number;
}

function addQdisc({ link, handle, below }: Place, kind: string, options: Buffer): Request {
  // struct tcmsg
  const body = Buffer.alloc(20);
  body.writeInt32LE(link, 4);
  body.writeUInt32LE(handleOf(handle), 8);
  body.writeUInt32LE(below === undefined ? TC_H_ROOT : handleOf(below) + 1, 12);
  return {
    type: RTM_NEWQDISC,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body,
    attributes: [
      [TCA_KIND, text(kind)],
      [TCA_OPTIONS, options],
    ],
    step: 'shape the traffic',
    path: kind,
  };
}

/** tc-tbf(8): `rate` in bytes a second, `burst` and `queue` in bytes. */
export function addTokenBucket(place: Place, rate: number, burst: number, queue: number): Request {
  // struct tc_tbf_qopt: two tc_ratespec, limit, buffer, mtu. Sizes count as they are on Ethernet, without a table of ours.
  const parameters = Buffer.alloc(36);
  parameters[1] = TC_LINKLAYER_ETHERNET;
  parameters.writeUInt32LE(Math.min(rate, 0xffffffff), 8);
  parameters.writeUInt32LE(queue, 24);
  const options = encodeAttributes([
    [TCA_TBF_PARMS, parameters],
    [TCA_TBF_BURST, u32(burst)],
    ...(rate > 0xffffffff ? [[TCA_TBF_RATE64, u64(BigInt(rate))] as const] : []),
  ]);
  return addQdisc(place, 'tbf', options);
}

/** tc-netem(8): each packet comes later, or, in so many of 100, never. */
export function addImpairment(place: Place, delayMs: number, lossPercent: number): Request {
  // struct tc_netem_qopt: latency (in ticks, which the attribute makes nanoseconds), limit, loss, gap, duplicate, jitter
  const parameters = Buffer.alloc(24);
  // Packets that are under way at once: those of 1 Gbit/s, of full size, in that time.
  parameters.writeUInt32LE(Math.max(1000, Math.ceil(delayMs * 90)), 4);
  parameters.writeUInt32LE(Math.round((lossPercent / 100) * 0xffffffff), 8);
  const options = Buffer.concat([parameters, encodeAttributes([[TCA_NETEM_LATENCY64, u64(BigInt(Math.round(delayMs * 1e6)))]])]);
  return addQdisc(place, 'netem', options);
}
