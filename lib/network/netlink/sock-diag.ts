// Sockets by their ends: sock_diag(7), linux/inet_diag.h.

import type { IpAddress } from '../ip.js';
import { familyNumber } from './address.js';
import type { Request } from './message.js';
import type { NetlinkSocket } from './socket.js';

const SOCK_DIAG_BY_FAMILY = 20;
const IPPROTO_TCP = 6;

export interface End {
  readonly address: IpAddress;
  readonly port: number;
}

/** struct inet_diag_req_v2: of one socket, whatever its state, by no cookie. */
function request(local: End, remote: End): Request {
  const body = Buffer.alloc(56);
  body[0] = familyNumber(local.address.family);
  body[1] = IPPROTO_TCP;
  body.writeUInt32LE(0xffffffff, 4);
  body.writeUInt16BE(local.port, 8);
  body.writeUInt16BE(remote.port, 10);
  body.set(local.address.bytes, 12);
  body.set(remote.address.bytes, 28);
  body.fill(0xff, 48);
  return { type: SOCK_DIAG_BY_FAMILY, flags: 0, body, attributes: [], step: 'find a socket' };
}

/** The inode of a TCP socket; rejects with ENOENT if there is none. */
export async function inodeOfTcp(socket: NetlinkSocket, local: End, remote: End): Promise<number | undefined> {
  const answers = await socket.request(request(local, remote));
  const message = answers.find(({ type }) => type === SOCK_DIAG_BY_FAMILY);
  // struct inet_diag_msg, idiag_inode
  return message?.payload.readUInt32LE(68);
}
