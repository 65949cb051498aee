import { ownText } from '../network/egress/inside-addresses.js';
import type { MountSetting } from './mount-settings.js';

/** resolv.conf(5) and hosts(5) of a sandbox whose names we answer for, unless the caller has mounted its own. On a bridge, that has the hosts. */
export function nameFiles(mounts: readonly MountSetting[], hostname = 'cloister', onBridge = false): MountSetting[] {
  const files = {
    '/etc/resolv.conf': `nameserver ${ownText[4]}\n`,
    '/etc/hosts': `127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t${hostname}\n`,
  };
  return Object.entries(files)
    .filter(([target]) => !(onBridge && target === '/etc/hosts') && !mounts.some((mount) => mount.target === target || mount.target === '/etc'))
    .map(([target, contents]) => ({ type: 'file', target, contents: Buffer.from(contents), mode: 0o644, onSymlink: true }));
}
