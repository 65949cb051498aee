// The frame of every netlink message: netlink(7), linux/netlink.h. A header, a fixed structure, attributes. In the machine's byte
// order, which is little-endian wherever this library runs.

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
/** Of requests that get something. */
export const NLM_F_DUMP = 0x300;
/** Of requests that make something. */
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

const NLA_F_NESTED = 0x8000;
/** Without the flags of nesting and byte order. */
const NLA_TYPE_MASK = 0x3fff;
const headerBytes = 16;

/** Its value: bytes, or attributes again. */
export type Attribute = readonly [type: number, value: Uint8Array | readonly Attribute[]];

export interface Request {
  readonly type: number;
  /** NLM_F_REQUEST is added. */
  readonly flags: number;
  /** The structure between the header and the attributes. */
  readonly body: Uint8Array;
  readonly attributes: readonly Attribute[];
  /** What it does, for errors: 'make the bridge'. */
  readonly step: string;
  /** To what: a link's name, an address. */
  readonly path?: string | undefined;
}

export interface Answer {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** What follows the header. */
  readonly payload: Buffer;
}

export function encodeMessage({ type, flags, body, attributes }: Request, sequence: number): Buffer {
  const payload = Buffer.concat([padded(body), encodeAttributes(attributes)]);
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32LE(headerBytes + payload.length, 0);
  header.writeUInt16LE(type, 4);
  header.writeUInt16LE(flags | NLM_F_REQUEST, 6);
  header.writeUInt32LE(sequence, 8);
  return Buffer.concat([header, payload]);
}

export function encodeAttributes(attributes: readonly Attribute[]): Buffer {
  return Buffer.concat(
    attributes.map(([type, value]) => {
      const nested = !(value instanceof Uint8Array);
      const bytes = nested ? encodeAttributes(value) : value;
      const header = Buffer.alloc(4);
      header.writeUInt16LE(4 + bytes.byteLength, 0);
      header.writeUInt16LE(nested ? type | NLA_F_NESTED : type, 2);
      return padded(Buffer.concat([header, bytes]));
    }),
  );
}

/** To the next multiple of 4: NLMSG_ALIGN, NLA_ALIGN. */
function padded(bytes: Uint8Array): Uint8Array {
  const rest = bytes.byteLength % 4;
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(4 - rest)]);
}

export function decodeMessages(bytes: Buffer): Answer[] {
  const answers: Answer[] = [];
  for (let at = 0; at + headerBytes <= bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    if (length < headerBytes || at + length > bytes.length) throw new RangeError('a netlink message is cut short');
    answers.push({
      type: bytes.readUInt16LE(at + 4),
      flags: bytes.readUInt16LE(at + 6),
      sequence: bytes.readUInt32LE(at + 8),
      payload: bytes.subarray(at + headerBytes, at + length),
    });
    at += (length + 3) & ~3;
  }
  return answers;
}

/** Attributes by their type; of one that is there several times, the last. */
export type Attributes = ReadonlyMap<number, Buffer>;

export function decodeAttributes(bytes: Buffer): Attributes {
  return new Map(listAttributes(bytes));
}

export function listAttributes(bytes: Buffer): [type: number, value: Buffer][] {
  const list: [number, Buffer][] = [];
  for (let at = 0; at + 4 <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < 4 || at + length > bytes.length) break;
    list.push([bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK, bytes.subarray(at + 4, at + length)]);
    at += (length + 3) & ~3;
  }
  return list;
}

// Values of attributes.
export const u8 = (value: number): Buffer => Buffer.of(value);
export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}
export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}
export function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}
/** Of the network's byte order, as nf_tables has all numbers. */
export function be16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}
export function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}
export const text = (value: string): Buffer => Buffer.from(`${value}\0`);
/** Up to its NUL. */
export const textOf = (bytes: Buffer | undefined): string | undefined => bytes?.toString('utf8').replace(/\0.*$/s, '');
