import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { NetworkError } from '../errors.js';

const read = (path: string): string => readFileSync(path, 'utf8').trim();

/**
 * Packets between links of this host: Documentation/networking/ip-sysctl.rst, ip_forward and conf/all/forwarding. It is of the whole
 * host, so it is turned on only if it is off, and stays: others may count on it by now.
 */
export function allowForwarding(family: 4 | 6): void {
  const path = family === 4 ? '/proc/sys/net/ipv4/ip_forward' : '/proc/sys/net/ipv6/conf/all/forwarding';
  try {
    if (read(path) !== '0') return;
    // A router does not listen to other routers, unless told so (accept_ra): this host would lose its own way out.
    if (family === 6) keepRouterAdvertisements();
    writeFileSync(path, '1');
  } catch (cause) {
    const { errno = 0 } = cause as NodeJS.ErrnoException;
    throw NetworkError.ofErrno('ERR_CLOISTER_NETWORK', errno, {
      step: 'forward packets between links',
      path,
      syscall: 'write',
      hint: `What leaves a bridge needs it: sysctl -w ${family === 4 ? 'net.ipv4.ip_forward=1' : 'net.ipv6.conf.all.forwarding=1'} on the host, if /proc/sys cannot be written to here.`,
      cause,
    });
  }
}

function keepRouterAdvertisements(): void {
  const directory = '/proc/sys/net/ipv6/conf';
  for (const link of readdirSync(directory)) {
    const path = `${directory}/${link}/accept_ra`;
    if (link !== 'all' && link !== 'default' && read(path) === '1') writeFileSync(path, '2');
  }
}
