import { layerError } from './layer-error.js';

// Numbers as tars write them.

/** Octal digits between spaces and NULs; or, where the first bit is set, a two's complement number of all other bits (GNU). */
export function parseNumber(field: Buffer, what: string, path?: Buffer): number {
  const first = field[0] as number;
  if (first & 0x80) {
    let value = BigInt(first & 0x40 ? -1 : 0) * 0x40n + BigInt(first & 0x3f);
    for (const byte of field.subarray(1)) value = value * 256n + BigInt(byte);
    return safe(Number(value), what, path);
  }
  const isBlank = (byte: number | undefined): boolean => byte === 0x20 || byte === 0;
  let at = 0;
  while (isBlank(field[at])) at++;
  let value = 0;
  for (; at < field.length && !isBlank(field[at]); at++) {
    const digit = (field[at] as number) - 0x30;
    if (digit < 0 || digit > 7) throw layerError(path, `its ${what} is no number`);
    value = value * 8 + digit;
  }
  return safe(value, what, path);
}

/** Decimal, as in a PAX record. */
export function parseDecimal(value: Buffer, what: string, path?: Buffer): number {
  const text = value.toString('latin1');
  if (!/^\d{1,20}$/.test(text)) throw layerError(path, `its ${what} is no number`);
  return safe(Number(text), what, path);
}

/** Seconds with a fraction, rounded down to nanoseconds. */
export function parseTime(value: Buffer, path?: Buffer): { seconds: number; nanoseconds: number } {
  const match = /^(-?)(\d{1,20})(?:\.(\d*))?$/.exec(value.toString('latin1'));
  if (!match) throw layerError(path, 'its mtime is no time');
  const [, sign, whole, fraction = ''] = match;
  const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, '0'));
  const seconds = safe(Number(whole), 'mtime', path);
  if (!sign) return { seconds, nanoseconds };
  return nanoseconds === 0 ? { seconds: 0 - seconds, nanoseconds } : { seconds: -seconds - 1, nanoseconds: 1e9 - nanoseconds };
}

function safe(value: number, what: string, path?: Buffer): number {
  if (!Number.isSafeInteger(value)) throw layerError(path, `its ${what} is too large`);
  return value;
}
