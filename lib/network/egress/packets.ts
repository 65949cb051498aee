import type { IpAddress } from '../ip.js';

// Packets as a raw socket sends them: from any address, so that who asked hears it from whom it was asked. RFC 791, 768, 792; RFC 8200, 4443.

export interface End {
  readonly address: IpAddress;
  readonly port: number;
}

const UDP = 17;
const ICMP = 1;
const ICMP6 = 58;

/** undefined: more than a packet can be. */
export function datagram(from: End, to: End, data: Uint8Array): Buffer | undefined {
  if (data.length > 65_000) return undefined;
  const udp = Buffer.alloc(8 + data.length);
  udp.writeUInt16BE(from.port, 0);
  udp.writeUInt16BE(to.port, 2);
  udp.writeUInt16BE(udp.length, 4);
  udp.set(data, 8);
  // 0 would be "none".
  udp.writeUInt16BE(checksum(pseudoHeader(from.address, to.address, UDP, udp.length), udp) || 0xffff, 6);
  return packet(from.address, to.address, UDP, udp);
}

/** "Port unreachable", about a datagram that went from `to` to `from`: who has connected a socket reads ECONNREFUSED. */
export function unreachable(from: End, to: End): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(to.port, 0);
  header.writeUInt16BE(from.port, 2);
  header.writeUInt16BE(8, 4);
  const about = packet(to.address, from.address, UDP, header);
  const six = from.address.family === 6;
  const message = Buffer.concat([Buffer.alloc(8), about]);
  message[0] = six ? 1 : 3;
  message[1] = six ? 4 : 3;
  const pseudo = six ? pseudoHeader(from.address, to.address, ICMP6, message.length) : Buffer.alloc(0);
  message.writeUInt16BE(checksum(pseudo, message), 2);
  return packet(from.address, to.address, six ? ICMP6 : ICMP, message);
}

function packet(from: IpAddress, to: IpAddress, protocol: number, payload: Buffer): Buffer {
  if (from.family === 6) {
    const header = Buffer.alloc(40);
    header[0] = 0x60;
    header.writeUInt16BE(payload.length, 4);
    header[6] = protocol;
    header[7] = 64;
    header.set(from.bytes, 8);
    header.set(to.bytes, 24);
    return Buffer.concat([header, payload]);
  }
  const header = Buffer.alloc(20);
  header[0] = 0x45;
  header.writeUInt16BE(20 + payload.length, 2);
  header[8] = 64;
  header[9] = protocol;
  header.set(from.bytes, 12);
  header.set(to.bytes, 16);
  header.writeUInt16BE(checksum(header), 10);
  return Buffer.concat([header, payload]);
}

function pseudoHeader(from: IpAddress, to: IpAddress, protocol: number, length: number): Buffer {
  const rest = Buffer.alloc(8);
  rest.writeUInt32BE(length, 0);
  rest[7] = protocol;
  return Buffer.concat([from.bytes, to.bytes, rest]);
}

/** RFC 1071 */
function checksum(...parts: readonly Buffer[]): number {
  let sum = 0;
  for (const part of parts) {
    for (let at = 0; at + 1 < part.length; at += 2) sum += part.readUInt16BE(at);
    if (part.length % 2 === 1) sum += (part[part.length - 1] as number) << 8;
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}
