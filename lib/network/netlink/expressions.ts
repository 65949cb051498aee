// What rules of nf_tables are made of: linux/netfilter/nf_tables.h. A value is loaded into a register, compared, used.

import type { IpAddress, Subnet } from '../ip.js';
import { maskOf } from '../ip.js';
import { familyNumber } from './address.js';
import { type Attribute, be16, be32, text, u32 } from './message.js';
import type { Expression } from './nftables.js';

const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CODE = 1;
const NFTA_VERDICT_CHAIN = 2;
/** Registers of 16 bytes: enum nft_registers. */
const NFT_REG_VERDICT = 0;
const NFT_REG_1 = 1;
const NFT_REG_2 = 2;

const expression = (name: string, attributes: readonly Attribute[]): Expression => [
  [NFTA_EXPR_NAME, text(name)],
  [NFTA_EXPR_DATA, attributes],
];

/** NFT_META_* */
const metaKeys = { protocol: 1, mark: 3, iifname: 6, oifname: 7, nfproto: 15, l4proto: 16 } as const;
type MetaKey = keyof typeof metaKeys;
/** Into register 1. NFTA_META_DREG, NFTA_META_KEY */
export const meta = (key: MetaKey): Expression =>
  expression('meta', [
    [1, be32(NFT_REG_1)],
    [2, be32(metaKeys[key])],
  ]);
/** From register 1. NFTA_META_SREG */
const metaSet = (key: MetaKey): Expression =>
  expression('meta', [
    [3, be32(NFT_REG_1)],
    [2, be32(metaKeys[key])],
  ]);
/** From register 1; NFTA_CMP_SREG, OP, DATA. */
export const compare = (value: Uint8Array, equal = true): Expression =>
  expression('cmp', [
    [1, be32(NFT_REG_1)],
    [2, be32(equal ? 0 : 1)],
    [3, [[NFTA_DATA_VALUE, value]]],
  ]);
/** Bytes of the packet: NFTA_PAYLOAD_DREG, BASE, OFFSET, LEN. */
export const payload = (base: 'link' | 'network' | 'transport', offset: number, length: number): Expression =>
  expression('payload', [
    [1, be32(NFT_REG_1)],
    [2, be32({ link: 0, network: 1, transport: 2 }[base])],
    [3, be32(offset)],
    [4, be32(length)],
  ]);
/** NFTA_BITWISE_SREG, DREG, LEN, MASK, XOR */
export const mask = (bits: Uint8Array): Expression =>
  expression('bitwise', [
    [1, be32(NFT_REG_1)],
    [2, be32(NFT_REG_1)],
    [3, be32(bits.byteLength)],
    [4, [[NFTA_DATA_VALUE, bits]]],
    [5, [[NFTA_DATA_VALUE, new Uint8Array(bits.byteLength)]]],
  ]);
/** A value for the register: NFTA_IMMEDIATE_DREG, DATA. */
export const immediate = (value: Uint8Array, register = NFT_REG_1): Expression =>
  expression('immediate', [
    [1, be32(register)],
    [2, [[NFTA_DATA_VALUE, value]]],
  ]);
/** Whether register 1 is in a set: NFTA_LOOKUP_SET, SREG, FLAGS (NFT_LOOKUP_F_INV). */
export const lookup = (set: string, isIn = true): Expression =>
  expression('lookup', [
    [1, text(set)],
    [2, be32(NFT_REG_1)],
    [5, be32(isIn ? 0 : 1)],
  ]);
/** NFTA_COUNTER_BYTES, PACKETS */
export const counter: Expression = expression('counter', [
  [1, new Uint8Array(8)],
  [2, new Uint8Array(8)],
]);

// Verdicts: linux/netfilter.h, enum nft_verdicts.
const codes = { drop: 0, accept: 1, return: -5 } as const;
const verdictOf = (code: number, chain?: string): Expression =>
  expression('immediate', [
    [1, be32(NFT_REG_VERDICT)],
    [2, [[NFTA_DATA_VERDICT, [[NFTA_VERDICT_CODE, be32(code)], ...(chain === undefined ? [] : [[NFTA_VERDICT_CHAIN, text(chain)] as Attribute])]]]],
  ]);
/** `accept` ends this chain alone, `drop` ends the packet. */
export const verdict = (name: keyof typeof codes): Expression => verdictOf(codes[name]);
/** NFT_JUMP */
export const jump = (chain: string): Expression => verdictOf(-3, chain);
/** Told to the sender. NFTA_REJECT_TYPE: NFT_REJECT_TCP_RST, or NFT_REJECT_ICMPX_UNREACH and its code, administratively prohibited. */
export const reject = (how: 'reset' | 'prohibited'): Expression =>
  expression(
    'reject',
    how === 'reset'
      ? [[1, be32(1)]]
      : [
          [1, be32(2)],
          [2, Buffer.of(3)],
        ],
  );

/** NFTA_CT_DREG, KEY: NFT_CT_STATE, NFT_CT_STATUS; bits of the machine's byte order. */
const tracked = (key: number, bits: number): Expression[] => [
  expression('ct', [
    [1, be32(NFT_REG_1)],
    [2, be32(key)],
  ]),
  mask(u32(bits)),
  compare(u32(0), false),
];
/** Replies, and what belongs to a connection: NFT_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED. */
export const isReply: readonly Expression[] = tracked(0, 0x2 | 0x4);
/** What a `dnat` has led here: IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h. */
export const isRedirected: readonly Expression[] = tracked(2, 1 << 5);

/** Names are compared whole: IFNAMSIZ bytes. */
const interfaceName = (name: string): Buffer => Buffer.concat([Buffer.from(name), Buffer.alloc(16)], 16);
export const comesFrom = (link: string, isSo = true): Expression[] => [meta('iifname'), compare(interfaceName(link), isSo)];
/** Whose name begins so: compared as far as that goes. */
export const comesFromAny = (prefix: string): Expression[] => [meta('iifname'), compare(Buffer.from(prefix))];
export const leavesBy = (link: string, isSo = true): Expression[] => [meta('oifname'), compare(interfaceName(link), isSo)];

/** NFPROTO_IPV4 and NFPROTO_IPV6 are the numbers of the families. */
export const isFamily = (family: 4 | 6): Expression[] => [meta('nfproto'), compare(Buffer.of(familyNumber(family)))];

const protocolNumbers = { icmp: 1, tcp: 6, udp: 17, icmp6: 58 } as const;
export type Protocol = keyof typeof protocolNumbers;
export const isProtocol = (protocol: Protocol): Expression[] => [meta('l4proto'), compare(Buffer.of(protocolNumbers[protocol]))];
/** Of TCP and UDP: the third and fourth byte of the header. Not without `isProtocol`. */
export const toPort = (port: number): Expression[] => [payload('transport', 2, 2), compare(be16(port))];

/** Where the addresses are in the header: RFC 791, RFC 8200. */
const addressOffset = { source: { 4: 12, 6: 8 }, destination: { 4: 16, 6: 24 } } as const;
const inSubnet = (end: 'source' | 'destination', { family, prefix, bytes }: Subnet, isSo: boolean): Expression[] => [
  ...isFamily(family),
  payload('network', addressOffset[end][family], bytes.length),
  ...(prefix === bytes.length * 8 ? [] : [mask(maskOf(family, prefix))]),
  compare(bytes, isSo),
];
export const isFrom = (subnet: Subnet, isSo = true): Expression[] => inSubnet('source', subnet, isSo);
export const isTo = (subnet: Subnet, isSo = true): Expression[] => inSubnet('destination', subnet, isSo);
/** The address alone, into register 1, for a lookup. */
export const destination = (family: 4 | 6): Expression[] => [...isFamily(family), payload('network', addressOffset.destination[family], family === 4 ? 4 : 16)];
/** `fib daddr type`: NFTA_FIB_DREG, RESULT (NFT_FIB_RESULT_ADDRTYPE), FLAGS (NFTA_FIB_F_DADDR); a type of linux/rtnetlink.h. */
const destinationType = expression('fib', [
  [1, be32(NFT_REG_1)],
  [2, be32(3)],
  [3, be32(2)],
]);
/** RTN_LOCAL */
export const isToUs: readonly Expression[] = [destinationType, compare(u32(2))];
/** Not to this host, nor to several: RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST. */
export const isToElsewhere: readonly Expression[] = [destinationType, ...[2, 3, 4, 5].map((type) => compare(u32(type), false))];

/** The socket that it is for is not one of all addresses: NFTA_SOCKET_KEY (NFT_SOCKET_WILDCARD), DREG. */
export const isBoundToAddress: readonly Expression[] = [
  expression('socket', [
    [1, be32(2)],
    [2, be32(NFT_REG_1)],
  ]),
  compare(Buffer.of(0)),
];

export const setMark = (mark: number): Expression[] => [immediate(u32(mark)), metaSet('mark')];
export const hasMark = (mark: number): Expression[] => [meta('mark'), compare(u32(mark))];
export const masquerade: Expression = expression('masq', []);
/** To another address: NFTA_NAT_TYPE (NFT_NAT_DNAT), FAMILY, REG_ADDR_MIN, REG_PROTO_MIN. */
export const dnat = (to: IpAddress, port: number): Expression[] => [
  immediate(to.bytes, NFT_REG_1),
  immediate(be16(port), NFT_REG_2),
  expression('nat', [
    [1, be32(1)],
    [2, be32(familyNumber(to.family))],
    [3, be32(NFT_REG_1)],
    [5, be32(NFT_REG_2)],
  ]),
];
/** To a port of this network: NFTA_REDIR_REG_PROTO_MIN. */
export const redirect = (port: number): Expression[] => [immediate(be16(port)), expression('redir', [[1, be32(NFT_REG_1)]])];
/** To a transparent socket on that port, the destination unchanged: NFTA_TPROXY_FAMILY, REG_ADDR, REG_PORT. Only in prerouting. */
export const tproxy = (family: 4 | 6, port: number, address?: IpAddress): Expression[] => [
  ...(address ? [immediate(address.bytes, NFT_REG_2)] : []),
  immediate(be16(port), NFT_REG_1),
  expression('tproxy', [[1, be32(familyNumber(family))], ...(address ? [[2, be32(NFT_REG_2)] as Attribute] : []), [3, be32(NFT_REG_1)]]),
];
