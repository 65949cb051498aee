import type { IpAddress } from '../ip.js';

// Questions and answers: RFC 1035, 4.1. No record of the world's passes here: a question is a name and a type, an answer an address.

export const types = { a: 1, aaaa: 28, opt: 41 } as const;
/** 4.1.1; RFC 2136, 2.2 has the names. */
export const codes = { noError: 0, formErr: 1, servFail: 2, nxDomain: 3, notImp: 4, refused: 5 } as const;

export interface Question {
  readonly id: number;
  /** Lower case, without the last dot. */
  readonly name: string;
  readonly type: number;
  readonly recursion: boolean;
  /** As it was asked, to be said again. */
  readonly section: Buffer;
  /** The sender knows EDNS: RFC 6891. */
  readonly extended: boolean;
}

const classInternet = 1;
const headerBytes = 12;
/** What a stand-in stands for does not change. */
const forLong = 300;

/** undefined: not to be answered at all, as an answer to an answer would be. A number: to be answered with this code. */
export function parseQuestion(message: Buffer): Question | { readonly id: number; readonly code: number } | undefined {
  if (message.length < headerBytes) return undefined;
  const [id, flags, questions] = [message.readUInt16BE(0), message.readUInt16BE(2), message.readUInt16BE(4)];
  if (flags & 0x8000) return undefined;
  if ((flags >> 11) & 0xf) return { id, code: codes.notImp };
  if (questions !== 1) return { id, code: codes.formErr };
  const labels: string[] = [];
  let at = headerBytes;
  for (;;) {
    const length = message[at];
    if (length === undefined || length > 63 || at + 1 + length > message.length) return { id, code: codes.formErr };
    at++;
    if (length === 0) break;
    labels.push(message.toString('latin1', at, at + length).toLowerCase());
    at += length;
  }
  if (at + 4 > message.length || at - headerBytes > 255) return { id, code: codes.formErr };
  const type = message.readUInt16BE(at);
  if (message.readUInt16BE(at + 2) !== classInternet) return { id, code: codes.refused };
  // A dot within a label, or a byte that no host name has, would be another name in our words than in theirs.
  if (labels.some((label) => !/^[a-z0-9_-]+$/.test(label))) return { id, code: codes.nxDomain };
  const extended = message.readUInt16BE(10) === 1 && message[at + 4] === 0 && at + 15 <= message.length && message.readUInt16BE(at + 5) === types.opt;
  return { id, name: labels.join('.'), type, recursion: (flags & 0x0100) !== 0, section: message.subarray(headerBytes, at + 4), extended };
}

export function refusalOf(id: number, code: number): Buffer {
  const message = Buffer.alloc(headerBytes);
  message.writeUInt16BE(id, 0);
  message.writeUInt16BE(0x8080 | code, 2);
  return message;
}

export function answerTo({ id, recursion, section, extended }: Question, code: number, address?: IpAddress, seconds = forLong): Buffer {
  const header = refusalOf(id, code);
  if (recursion) header.writeUInt16BE(header.readUInt16BE(2) | 0x0100, 2);
  header.writeUInt16BE(1, 4);
  const parts = [header, section];
  if (address) {
    header.writeUInt16BE(1, 6);
    const record = Buffer.alloc(12);
    // The name at the begin of the question: 4.1.4.
    record.writeUInt16BE(0xc000 | headerBytes, 0);
    record.writeUInt16BE(address.family === 4 ? types.a : types.aaaa, 2);
    record.writeUInt16BE(classInternet, 4);
    record.writeUInt32BE(seconds, 6);
    record.writeUInt16BE(address.bytes.length, 10);
    parts.push(record, Buffer.from(address.bytes));
  }
  if (extended) {
    header.writeUInt16BE(1, 10);
    const option = Buffer.alloc(11);
    option.writeUInt16BE(types.opt, 1);
    option.writeUInt16BE(1232, 3);
    parts.push(option);
  }
  return Buffer.concat(parts);
}
