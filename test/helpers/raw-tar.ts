/** Tars as no honest program writes them: each field of a header may be anything. */

export interface RawHeader {
  readonly name?: string | Buffer;
  readonly mode?: number | string;
  readonly uid?: number | Buffer;
  readonly gid?: number | Buffer;
  /** A number, the bytes of the field, or (undefined) the length of `content`. */
  readonly size?: number | Buffer | string;
  readonly mtime?: number | string;
  readonly type?: string;
  readonly target?: string | Buffer;
  readonly magic?: string;
  readonly major?: number | Buffer;
  readonly minor?: number | Buffer;
  readonly prefix?: string;
  readonly content?: string | Buffer;
  /** The last word, before the checksum is made. */
  readonly edit?: (header: Buffer) => void;
  /** Instead of the right one. */
  readonly checksum?: string;
}

const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, '0')}\0`;

/** A number in all bits of a field, as GNU tar writes what does not fit (two's complement). */
export function binary(value: bigint, width: number): Buffer {
  const field = Buffer.alloc(width);
  let rest = BigInt.asUintN(width * 8, value);
  for (let at = width - 1; at >= 0; at--) {
    field[at] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  field[0] = (field[0] as number) | 0x80;
  return field;
}

export function entry(raw: RawHeader): Buffer {
  const content = Buffer.from(raw.content ?? '');
  const header = Buffer.alloc(512);
  const put = (value: string | number | Buffer, at: number, width: number): void => {
    const bytes = typeof value === 'number' ? Buffer.from(octal(value, width), 'latin1') : Buffer.from(value);
    bytes.copy(header, at, 0, width);
  };
  put(raw.name ?? '', 0, 100);
  put(raw.mode ?? 0o644, 100, 8);
  put(raw.uid ?? 0, 108, 8);
  put(raw.gid ?? 0, 116, 8);
  put(raw.size ?? content.length, 124, 12);
  put(raw.mtime ?? 1_700_000_000, 136, 12);
  put(raw.type ?? '0', 156, 1);
  put(raw.target ?? '', 157, 100);
  put(raw.magic ?? 'ustar\x0000', 257, 8);
  put(raw.major ?? 0, 329, 8);
  put(raw.minor ?? 0, 337, 8);
  put(raw.prefix ?? '', 345, 155);
  raw.edit?.(header);
  put(raw.checksum ?? checksumOf(header), 148, 8);
  return Buffer.concat([header, padded(content)]);
}

export function checksumOf(header: Buffer): string {
  let sum = 8 * 0x20;
  for (let at = 0; at < 512; at++) if (at < 148 || at >= 156) sum += header[at] as number;
  return `${sum.toString(8).padStart(6, '0')}\0 `;
}

export function padded(content: Buffer): Buffer {
  return Buffer.concat([content, Buffer.alloc((512 - (content.length % 512)) % 512)]);
}

type Records = Readonly<Record<string, string | Buffer>>;

/** pax(1): the length counts itself. */
export function record(key: string, value: string | Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, 'latin1'), Buffer.from(value), Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

/** An extended header of the entry that follows; 'g': of all that follow. */
export function pax(records: Records | Buffer, type = 'x'): Buffer {
  const content = Buffer.isBuffer(records) ? records : Buffer.concat(Object.entries(records).map(([key, value]) => record(key, value)));
  return entry({ name: 'PaxHeaders/x', type, content });
}

/** GNU's long name ('L') or link target ('K') of the entry that follows. */
export const long = (type: 'L' | 'K', text: string | Buffer): Buffer =>
  entry({ name: '././@LongLink', type, magic: 'ustar  \0', content: Buffer.concat([Buffer.from(text), Buffer.alloc(1)]) });

export const file = (name: string | Buffer, content: string | Buffer = '', more: RawHeader = {}): Buffer => entry({ name, content, ...more });
export const directory = (name: string, more: RawHeader = {}): Buffer => entry({ name: `${name}/`, type: '5', mode: 0o755, ...more });
export const symlink = (name: string, target: string | Buffer, more: RawHeader = {}): Buffer => entry({ name, type: '2', target, mode: 0o777, ...more });
export const hardLink = (name: string, target: string | Buffer, more: RawHeader = {}): Buffer => entry({ name, type: '1', target, ...more });

export const end = Buffer.alloc(1024);
export const archive = (...parts: readonly Buffer[]): Buffer => Buffer.concat([...parts, end]);

/** GNU's own header of a sparse file; `map` are pairs of offset and length. */
export function sparse(
  name: string,
  size: number | Buffer,
  map: readonly (readonly [number | Buffer, number | Buffer])[],
  content: Buffer,
  extended = false,
): Buffer {
  return entry({
    name,
    type: 'S',
    magic: 'ustar  \0',
    content,
    edit: (header) => {
      const field = (value: number | Buffer, at: number): void =>
        void (typeof value === 'number' ? Buffer.from(octal(value, 12), 'latin1') : value).copy(header, at);
      for (const [index, [offset, length]] of map.slice(0, 4).entries()) {
        field(offset, 386 + index * 24);
        field(length, 398 + index * 24);
      }
      header[482] = extended ? 1 : 0;
      field(size, 483);
    },
  });
}
