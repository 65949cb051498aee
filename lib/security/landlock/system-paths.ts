// What a program needs of a host to run at all, and nothing that tells about its people: what `fallback` allows to read. A host need
// not have each of them. /etc is taken apart, as Landlock cannot take a secret back out of a directory that it has allowed.

/** Programs and libraries: read and executed. */
export const systemPrograms = ['/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32', '/opt', '/nix/store', '/gnu/store'] as const;

const configuration = [
  ...['alternatives', 'bash.bashrc', 'ca-certificates', 'crypto-policies', 'fonts', 'gai.conf', 'group', 'host.conf', 'hostname', 'hosts', 'inputrc'],
  ...['ld.so.cache', 'ld.so.conf', 'ld.so.conf.d', 'locale.alias', 'locale.conf', 'localtime', 'login.defs', 'magic', 'mime.types', 'networks'],
  ...['nsswitch.conf', 'os-release', 'passwd', 'pki/tls/certs', 'profile', 'profile.d', 'protocols', 'resolv.conf', 'rpc', 'services', 'shells'],
  ...['ssl/certs', 'ssl/openssl.cnf', 'terminfo', 'timezone'],
].map((name) => `/etc/${name}`);

/** Of /proc only itself, and what describes the machine: other processes show their arguments to whoever may read there. */
const kernel = [
  ...['self', 'cpuinfo', 'filesystems', 'loadavg', 'meminfo', 'stat', 'uptime', 'version', 'sys/kernel/cap_last_cap', 'sys/kernel/ngroups_max'],
  ...['sys/kernel/osrelease', 'sys/kernel/random', 'sys/vm/overcommit_memory'],
].map((name) => `/proc/${name}`);

export const systemReads: readonly string[] = [...systemPrograms, ...configuration, ...kernel, '/sys/devices/system/cpu', '/sys/devices/system/node'];

/** As in a /dev of our own (lib/rootfs/devices.ts). */
export const systemDevices = ['/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom', '/dev/tty'] as const;
