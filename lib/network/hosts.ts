import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { formatAddress, type IpAddress, parseAddress } from './ip.js';

/** Of all bridges, a directory each, named by its owner. */
export const hostsDirectory = '/run/cloister/bridges';

export interface Peer {
  readonly hostname: string | undefined;
  readonly addresses: readonly IpAddress[];
}

/** A sandbox's /etc/hosts: hosts(5). It is mounted there as it is, so it keeps its inode, and running programs see what changes. */
export interface HostsFile {
  readonly path: string;
  /** Names of its own. */
  readonly names: Readonly<Record<string, string>>;
}

/** The names of a bridge: who is on it is known to all who are. */
export class Hosts {
  readonly #directory: string;
  readonly #files = new Set<HostsFile>();
  readonly #peers = new Set<Peer>();
  #count = 0;

  constructor(owner: string) {
    this.#directory = join(hostsDirectory, owner);
  }

  addFile(names: Readonly<Record<string, string>>): HostsFile {
    mkdirSync(this.#directory, { recursive: true, mode: 0o755 });
    const file = { path: join(this.#directory, `${this.#count++}`), names };
    this.#files.add(file);
    this.#write(file);
    return file;
  }

  removeFile(file: HostsFile): void {
    this.#files.delete(file);
    rmSync(file.path, { force: true });
  }

  addPeer(peer: Peer): void {
    this.#peers.add(peer);
    if (peer.hostname !== undefined) this.#writeAll();
  }

  removePeer(peer: Peer): void {
    if (this.#peers.delete(peer) && peer.hostname !== undefined) this.#writeAll();
  }

  /** Of whoever is known by that name; names of hosts are the same in capitals: RFC 1123, 2.1. */
  addressesOf(name: string): IpAddress[] {
    return [...this.#peers].filter(({ hostname }) => hostname?.toLowerCase() === name).flatMap(({ addresses }) => addresses);
  }

  clear(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #writeAll(): void {
    for (const file of this.#files) this.#write(file);
  }

  /** In one piece: who reads meanwhile sees the old or the new beginning, and never a line that is cut. */
  #write({ path, names }: HostsFile): void {
    const lines = ['127.0.0.1 localhost', '::1 localhost ip6-localhost ip6-loopback'];
    for (const [name, address] of Object.entries(names)) lines.push(`${address} ${name}`);
    for (const { hostname, addresses } of this.#peers)
      for (const address of addresses) if (hostname !== undefined) lines.push(`${formatAddress(address)} ${hostname}`);
    const contents = Buffer.from(`${lines.join('\n')}\n`);
    const fd = openSync(path, 'a+', 0o644);
    closeSync(fd);
    const file = openSync(path, 'r+');
    try {
      writeSync(file, contents, 0, contents.length, 0);
      ftruncateSync(file, contents.length);
    } finally {
      closeSync(file);
    }
  }
}

/** What asks names inside: those servers of the host that are to be reached from there, resolv.conf(5). */
export function resolvConf(canLeave: boolean): string {
  if (!canLeave) return '# Nothing but the peers of /etc/hosts can be reached from here.\n';
  // systemd-resolved's own file names a server on this host's loopback; the other one has those that it asks.
  for (const path of ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf']) {
    const lines = readOptional(path).split('\n');
    const servers = lines.filter((line) => isReachable(/^\s*nameserver\s+(\S+)/.exec(line)?.[1]));
    if (servers.length > 0) return `${[...servers, ...lines.filter((line) => /^\s*(search|options|domain)\s/.test(line))].join('\n')}\n`;
  }
  return '# No name server of the host can be reached from here.\n';
}

function readOptional(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function isReachable(server: string | undefined): boolean {
  const address = server === undefined ? undefined : parseAddress(server);
  if (!address) return false;
  return address.family === 4 ? address.bytes[0] !== 127 : formatAddress(address) !== '::1';
}
