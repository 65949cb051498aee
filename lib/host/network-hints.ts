import * as k from '../plan/constants.js';
import { type Advice, type Look, look } from './hints.js';

export interface NetworkRefusal {
  /** Of a netlink request: 'make the bridge'. */
  readonly step: string;
  readonly path: string | undefined;
  /** Positive. */
  readonly errno: number;
  /** The kernel's own: NLMSGERR_ATTR_MSG, linux/netlink.h. */
  readonly words: string | undefined;
}

const CAP_NET_ADMIN = 12n;

/** Why a network refused what it was asked for; undefined: the kernel's words say all. */
export function networkAdvice({ step, path, errno, words }: NetworkRefusal, at: Look = look): Advice | undefined {
  // qdisc_create in net/sched/sch_api.c, which has asked for the module already.
  if (errno === k.ENOENT && step === 'shape the traffic') {
    return {
      what: `this kernel has no ${path}`,
      hint: `It is the module sch_${path} (CONFIG_NET_SCH_${path?.toUpperCase()}): on Debian and Ubuntu in the kernel's own package, on Fedora in kernel-modules-extra.`,
    };
  }
  if (step === 'confine the link' && [k.EOPNOTSUPP, k.EAFNOSUPPORT, k.ENOENT].includes(errno)) {
    return {
      what: 'this kernel has no nf_tables for single links, which hold what a sandbox with egress sends on a bridge',
      hint: 'It is CONFIG_NF_TABLES_NETDEV with CONFIG_NETFILTER_INGRESS. Without `bridge`, egress needs neither.',
    };
  }
  // inet6_addr_add; the link's own setting follows from that of all, or of those that are new.
  if (errno === k.EACCES && step === 'give the link an address' && path?.includes(':')) {
    return {
      what: 'IPv6 is turned off in this network',
      hint: 'Give the bridge a subnet of IPv4 alone, or turn it on: net.ipv6.conf.all.disable_ipv6 and net.ipv6.conf.default.disable_ipv6 are 0 then, on the host and by `sysctl` of the spawn.',
    };
  }
  if (errno !== k.EPERM && errno !== k.EACCES) return undefined;
  const capabilities = /^CapEff:\s*([0-9a-f]+)/m.exec(at('/proc/self/status') ?? '')?.[1];
  if (capabilities === undefined || (BigInt(`0x${capabilities}`) >> CAP_NET_ADMIN) & 1n) return undefined;
  return {
    what: `changing a network takes CAP_NET_ADMIN over it${words === undefined ? '' : ` (${words})`}`,
    hint: 'Run as root, or give this process CAP_NET_ADMIN and CAP_SYS_ADMIN. What needs no such right: published ports and egress without a bridge.',
    evidence: [`/proc/self/status has CapEff ${capabilities}, without CAP_NET_ADMIN`],
  };
}
