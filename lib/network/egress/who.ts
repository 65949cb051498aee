import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { IpAddress } from '../ip.js';
import { inodeOfTcp } from '../netlink/sock-diag.js';
import { NetlinkSocket } from '../netlink/socket.js';
import { addressOf } from './policy.js';

/** One end inside, and where it sends to. */
export interface Flow {
  readonly protocol: 'tcp' | 'udp';
  readonly from: string;
  readonly fromPort: number;
  readonly to: string;
  readonly toPort: number;
}

/** Descriptors that are looked at for one connection. */
const mostLooks = 8192;

/** Finds the process that a connection is of, as far as it can be known. */
export class Who {
  readonly #diagnosis: NetlinkSocket;
  readonly #root: number;

  /** Takes the descriptor, a socket for sock_diag(7) in that network. `root`: the process that all others inside descend from. */
  constructor(diagnosis: number, root: number) {
    this.#diagnosis = NetlinkSocket.of(diagnosis);
    this.#root = root;
  }

  close(): void {
    this.#diagnosis.close();
  }

  /** undefined: it has closed it, or ended. */
  async has(flow: Flow): Promise<number | undefined> {
    const inode = flow.protocol === 'tcp' ? await this.#inodeOfTcp(flow) : inodeIn('udp', flow, this.#root);
    return inode === undefined ? undefined : this.#holder(`socket:[${inode}]`);
  }

  /** To read the table costs 20 ms: it walks all buckets of all networks (listening_get_first, established_get_first). */
  async #inodeOfTcp(flow: Flow): Promise<string | undefined> {
    const { from, fromPort, to, toPort } = flow;
    try {
      const inode = await inodeOfTcp(this.#diagnosis, { address: addressOf(from), port: fromPort }, { address: addressOf(to), port: toPort });
      return inode === undefined || inode === 0 ? undefined : String(inode);
    } catch {
      // Gone; or the kernel has no tcp_diag, and says ENOENT as well (inet_diag_lock_handler): then the table tells.
      return inodeIn('tcp', flow, this.#root);
    }
  }

  #holder(target: string): number | undefined {
    const seen = new Set([this.#root]);
    let looks = 0;
    // A set that grows while it is walked: children after their parents.
    for (const pid of seen) {
      // What was opened last has the highest number, mostly.
      for (const fd of list(`/proc/${pid}/fd`).reverse()) {
        if (++looks > mostLooks) return undefined;
        if (link(`/proc/${pid}/fd/${fd}`) === target) return pid;
      }
      for (const child of childrenOf(pid)) seen.add(child);
    }
    return undefined;
  }
}

/** By the tables of its network: proc_pid_net(5). */
function inodeIn(protocol: 'tcp' | 'udp', { from, fromPort, toPort }: Flow, pid: number): string | undefined {
  const address = addressOf(from);
  // A socket of IPv6 may be used for IPv4.
  const tables = address.family === 4 ? [protocol, `${protocol}6`] : [`${protocol}6`];
  const port = hex(fromPort);
  for (const table of tables) {
    for (const line of read(`/proc/${pid}/net/${table}`).split('\n')) {
      const [, local = '', remote = '', , , , , , , inode] = line.trim().split(/\s+/);
      if (inode === undefined || inode === '0' || !local.endsWith(`:${port}`)) continue;
      const [localAddress = ''] = local.split(':');
      const isUnconnected = remote.endsWith(':0000') && protocol === 'udp';
      if (!isUnconnected && !remote.endsWith(`:${hex(toPort)}`)) continue;
      if (/^0+$/.test(localAddress) || localAddress.endsWith(words(address))) return inode;
    }
  }
  return undefined;
}

const hex = (port: number): string => port.toString(16).toUpperCase().padStart(4, '0');

/** Words of 32 bits in the machine's order, as the tables have them: get_tcp4_sock. */
function words({ bytes }: IpAddress): string {
  const parts: string[] = [];
  for (let at = 0; at < bytes.length; at += 4)
    parts.push(
      Buffer.from(bytes.slice(at, at + 4))
        .reverse()
        .toString('hex')
        .toUpperCase(),
    );
  return parts.join('');
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function childrenOf(pid: number): number[] {
  return list(`/proc/${pid}/task`).flatMap((tid) =>
    read(`/proc/${pid}/task/${tid}/children`)
      .split(' ')
      .filter((word) => word !== '')
      .map(Number),
  );
}

function link(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
