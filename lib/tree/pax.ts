import { layerError } from './layer-error.js';

// pax(1), "pax Extended Header".

/** Keywords (as latin1) and values. */
export type Pax = Map<string, Buffer>;

export function parsePax(body: Buffer): Pax {
  const records: Pax = new Map();
  // Format 0.0 of sparse files says these keywords many times.
  const repeated: Record<string, Buffer[]> = { 'GNU.sparse.offset': [], 'GNU.sparse.numbytes': [] };
  for (let at = 0; at < body.length; ) {
    const space = body.indexOf(0x20, at);
    const digits = space < 0 ? '' : body.toString('latin1', at, Math.min(space, at + 20));
    if (!/^[1-9]\d{0,8}$/.test(digits)) throw layerError(undefined, 'a PAX record has no length');
    const end = at + Number(digits);
    if (end > body.length || body[end - 1] !== 0x0a) throw layerError(undefined, 'a PAX record has a wrong length');
    const equals = body.indexOf(0x3d, space);
    if (equals < 0 || equals >= end || equals === space + 1) throw layerError(undefined, 'a PAX record has no keyword');
    const key = body.toString('latin1', space + 1, equals);
    const value = body.subarray(equals + 1, end - 1);
    at = end;
    const list = Object.hasOwn(repeated, key) ? repeated[key] : undefined;
    if (list) list.push(value);
    // An empty value takes the keyword back: of an attribute, it is its value.
    else if (value.length === 0 && !key.startsWith('SCHILY.xattr.')) records.delete(key);
    else records.set(key, value);
  }
  const { 'GNU.sparse.offset': offsets = [], 'GNU.sparse.numbytes': counts = [] } = repeated;
  if (offsets.length !== counts.length) throw layerError(undefined, 'the map of a sparse file is incomplete');
  if (offsets.length > 0) records.set('GNU.sparse.map', Buffer.from(offsets.map((offset, index) => `${offset},${counts[index]}`).join(',')));
  return records;
}
