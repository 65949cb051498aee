// What a client says first, where it names who it wants to talk to: TLS (RFC 8446, 4.1.2; RFC 6066, 3) and HTTP/1 (RFC 9112, 3).

/** 'more': not yet. Else the names, of which none is a legal answer: other protocols name nobody. */
export type Said = 'more' | readonly string[];

/** A ClientHello, or the head of a request, that is longer is none that anybody sends. */
export const longest = 65_536;

export function namesIn(bytes: Buffer): Said {
  if (bytes.length === 0) return 'more';
  return bytes[0] === 0x16 ? inHello(bytes) : inRequest(bytes);
}

const handshake = 22;
const clientHello = 1;
const serverName = 0;

function inHello(bytes: Buffer): Said {
  const message: Buffer[] = [];
  let have = 0;
  let at = 0;
  // A hello may be cut into records as its sender likes: RFC 8446, 5.1.
  for (;;) {
    if (bytes.length > at && bytes[at] !== handshake) return [];
    if (bytes.length > at + 1 && bytes[at + 1] !== 3) return [];
    if (bytes.length < at + 5) return 'more';
    const length = bytes.readUInt16BE(at + 3);
    if (length === 0) return [];
    const part = bytes.subarray(at + 5, at + 5 + length);
    message.push(part);
    have += part.length;
    if (have >= 4) {
      const [all] = message.length > 1 ? [Buffer.concat(message)] : message;
      if (all?.[0] !== clientHello) return [];
      const size = all.readUIntBE(1, 3);
      if (have >= size + 4) return namesOfHello(all.subarray(4, size + 4));
    }
    if (part.length < length) return 'more';
    at += 5 + length;
  }
}

function namesOfHello(hello: Buffer): string[] {
  try {
    // legacy_version, random, then three vectors of lengths of 1, 2 and 1 bytes.
    let at = 34;
    at += 1 + hello.readUInt8(at);
    at += 2 + hello.readUInt16BE(at);
    at += 1 + hello.readUInt8(at);
    if (at === hello.length) return [];
    const end = at + 2 + hello.readUInt16BE(at);
    at += 2;
    const names: string[] = [];
    while (at + 4 <= end) {
      const [type, length] = [hello.readUInt16BE(at), hello.readUInt16BE(at + 2)];
      at += 4;
      if (type === serverName) {
        for (let entry = at + 2; entry + 3 <= at + length; ) {
          const size = hello.readUInt16BE(entry + 1);
          names.push(plain(hello.toString('latin1', entry + 3, entry + 3 + size)));
          entry += 3 + size;
        }
      }
      at += length;
    }
    return names;
  } catch {
    // Broken: what a server makes of it is not known, so it names nobody that could be allowed.
    return ['(a broken ClientHello)'];
  }
}

function inRequest(bytes: Buffer): Said {
  // Servers pass over empty lines before a request: RFC 9112, 2.2.
  const text = bytes.toString('latin1').replace(/^[\r\n]+/, '');
  // Methods are tokens, and all that are in use are written so: RFC 9110, 16.1.
  if (/^[A-Z-]{0,24}$/.test(text)) return 'more';
  if (!/^[A-Z-]{1,24} /.test(text)) return [];
  // Without the one that is not at its end yet.
  const lines = text.split('\n').slice(0, -1);
  const [first] = lines;
  if (first === undefined) return 'more';
  // Servers differ in what they forgive; what none takes for a request does no harm if we do.
  const request = /^\S+\s+(.*?)\s*HTTP\//s.exec(first);
  if (!request) return [];
  const end = lines.findIndex((line, index) => index > 0 && line.replace(/\r$/, '') === '');
  if (end < 0) return 'more';
  const names = lines.slice(1, end).flatMap((line) => {
    const host = /^\s*host\s*:(.*)$/is.exec(line);
    return host ? [plain(host[1] as string)] : [];
  });
  // To a proxy, and taken by servers before the Host: RFC 9112, 3.2.2.
  const absolute = /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?([^/?#]*)/i.exec(request[1] as string);
  return absolute ? [...names, plain(absolute[1] as string)] : names;
}

/** Lower case, without a port, and without the last dot. */
const plain = (host: string): string => host.trim().toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '');
