// What of a refused call can be told: the path or address that it was about.

import type { SeccompCall } from '../types.js';

/** Which argument is the path. */
const paths: Readonly<Record<number, readonly string[]>> = {
  0: `open creat stat lstat access chdir chroot mkdir rmdir mknod unlink link rename readlink chmod chown lchown truncate statfs utime utimes
    getxattr lgetxattr setxattr lsetxattr listxattr llistxattr removexattr lremovexattr swapon swapoff acct pivot_root umount2 uselib
    fsopen mq_open mq_unlink execve`.split(/\s+/),
  1: `openat openat2 newfstatat statx faccessat faccessat2 mkdirat mknodat unlinkat linkat renameat renameat2 readlinkat fchmodat fchmodat2
    fchownat utimensat futimesat name_to_handle_at open_tree open_tree_attr mount_setattr move_mount fspick mount symlink
    inotify_add_watch setxattrat getxattrat listxattrat removexattrat file_getattr file_setattr quotactl execveat`.split(/\s+/),
  2: ['symlinkat'],
  4: ['fanotify_mark'],
};
const pathArgument = new Map(Object.entries(paths).flatMap(([index, names]) => names.map((name) => [name, Number(index)])));
/** Which two are the address and its size. */
const addressArguments: Readonly<Record<string, number>> = { connect: 1, bind: 1, sendto: 4 };

const [AF_UNIX, AF_INET, AF_INET6] = [1, 2, 10];

export interface About {
  path?: string;
  address?: string;
  port?: number;
}

export function aboutOf(call: SeccompCall): About {
  const index = pathArgument.get(call.syscall);
  if (index !== undefined) {
    const path = call.readString(call.args[index] as bigint);
    return path === undefined ? {} : { path };
  }
  const at = addressArguments[call.syscall];
  if (at === undefined || call.args[at] === 0n) return {};
  // struct sockaddr_storage: 128 bytes.
  const bytes = call.readBytes(call.args[at] as bigint, Math.min(Number((call.args[at + 1] as bigint) & 0xffffffffn), 128));
  return bytes ? addressOf(bytes) : {};
}

/** struct sockaddr_in, sockaddr_in6, sockaddr_un: ip(7), ipv6(7), unix(7). An abstract name begins with '@'. */
export function addressOf(bytes: Buffer): About {
  if (bytes.length < 2) return {};
  const family = bytes.readUInt16LE(0);
  if (family === AF_INET && bytes.length >= 8) return { address: bytes.subarray(4, 8).join('.'), port: bytes.readUInt16BE(2) };
  if (family === AF_INET6 && bytes.length >= 24) {
    const groups = Array.from({ length: 8 }, (_, group) => bytes.readUInt16BE(8 + group * 2).toString(16));
    // The one spelling of each, RFC 5952.
    return { address: new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1), port: bytes.readUInt16BE(2) };
  }
  if (family === AF_UNIX && bytes.length > 2) {
    const name = bytes.subarray(2);
    if (name[0] === 0) return { path: `@${name.subarray(1).toString()}` };
    const end = name.indexOf(0);
    return { path: name.subarray(0, end < 0 ? undefined : end).toString() };
  }
  return {};
}
