// Tables, chains and rules of nf_tables: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h. All numbers are big-endian.

import { type Answer, type Attribute, be32, decodeAttributes, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, type Request, text, textOf } from './message.js';
import type { NetlinkSocket } from './socket.js';

const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
const NFT_MSG_NEWTABLE = 0;
const NFT_MSG_GETTABLE = 1;
const NFT_MSG_DELTABLE = 2;
const NFT_MSG_NEWCHAIN = 3;
const NFT_MSG_NEWRULE = 6;
const NFT_MSG_GETRULE = 7;
const NFT_MSG_DELRULE = 8;
const NFT_MSG_NEWSET = 9;
const NFT_MSG_NEWSETELEM = 12;
const NFT_MSG_DELSETELEM = 14;

const NFTA_TABLE_NAME = 1;
const NFTA_CHAIN_TABLE = 1;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_CHAIN_TYPE = 7;
const NFTA_HOOK_HOOKNUM = 1;
const NFTA_HOOK_PRIORITY = 2;
const NFTA_HOOK_DEV = 3;
const NFTA_RULE_TABLE = 1;
const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_HANDLE = 3;
const NFTA_RULE_EXPRESSIONS = 4;
const NFTA_RULE_USERDATA = 7;
const NFTA_SET_TABLE = 1;
const NFTA_SET_NAME = 2;
const NFTA_SET_FLAGS = 3;
const NFTA_SET_KEY_TYPE = 4;
const NFTA_SET_KEY_LEN = 5;
const NFTA_SET_ID = 10;
const NFTA_SET_ELEM_LIST_TABLE = 1;
const NFTA_SET_ELEM_LIST_SET = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
const NFTA_SET_ELEM_KEY = 1;
const NFTA_SET_ELEM_FLAGS = 3;
const NFTA_DATA_VALUE = 1;
const NFTA_LIST_ELEM = 1;
const NFT_SET_INTERVAL = 4;
const NFT_SET_ELEM_INTERVAL_END = 1;
/** For nft(8), which shows it: type and length before each part, NFTNL_UDATA_RULE_COMMENT of libnftnl's udata.h. At most 128 letters. */
const commentType = 0;
const NF_DROP = 0;
const NF_ACCEPT = 1;

/** NFPROTO_*, linux/netfilter.h; 'inet' is IPv4 and IPv6, 'netdev' all frames of a link. */
const families = { inet: 1, ip: 2, netdev: 5, ip6: 10 } as const;
export type Family = keyof typeof families;
/** NF_INET_*, NF_NETDEV_INGRESS: linux/netfilter.h */
const hooks = { ingress: 0, prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;

export interface Table {
  readonly family: Family;
  readonly name: string;
}
export interface Chain {
  readonly name: string;
  /** Without, it is one to jump to. */
  readonly hook?: keyof typeof hooks;
  readonly type?: 'filter' | 'nat' | 'route';
  /** Chains of one hook run in its order: linux/netfilter_ipv4.h, NF_IP_PRI_*. */
  readonly priority?: number;
  readonly policy?: 'accept' | 'drop';
  /** Of 'netdev': the link whose frames it sees. */
  readonly link?: string;
}
/** What a rule does, step by step; expressions.ts makes them. */
export type Expression = readonly Attribute[];

/** struct nfgenmsg */
function nfgenmsg(family: number, resource = 0): Buffer {
  const body = Buffer.alloc(4);
  body[0] = family;
  body.writeUInt16BE(resource, 2);
  return body;
}

function message(kind: number, table: Pick<Table, 'family'>, flags: number, attributes: readonly Attribute[], step: string, path?: string): Request {
  return { type: (NFNL_SUBSYS_NFTABLES << 8) | kind, flags, body: nfgenmsg(families[table.family]), attributes, step, path };
}

export const addTable = (table: Table): Request =>
  message(NFT_MSG_NEWTABLE, table, NLM_F_CREATE | NLM_F_EXCL, [[NFTA_TABLE_NAME, text(table.name)]], 'make the packet filter', table.name);

/** With all that is in it. */
export const deleteTable = (table: Table): Request =>
  message(NFT_MSG_DELTABLE, table, 0, [[NFTA_TABLE_NAME, text(table.name)]], 'remove the packet filter', table.name);

export function addChain(table: Table, { name, hook, type = 'filter', priority = 0, policy = 'accept', link }: Chain): Request {
  const base: Attribute[] =
    hook === undefined
      ? []
      : [
          [
            NFTA_CHAIN_HOOK,
            [
              [NFTA_HOOK_HOOKNUM, be32(hooks[hook])],
              [NFTA_HOOK_PRIORITY, be32(priority)],
              ...(link === undefined ? [] : [[NFTA_HOOK_DEV, text(link)] as Attribute]),
            ],
          ],
          [NFTA_CHAIN_TYPE, text(type)],
          [NFTA_CHAIN_POLICY, be32(policy === 'drop' ? NF_DROP : NF_ACCEPT)],
        ];
  const attributes: Attribute[] = [[NFTA_CHAIN_TABLE, text(table.name)], [NFTA_CHAIN_NAME, text(name)], ...base];
  return message(NFT_MSG_NEWCHAIN, table, NLM_F_CREATE | NLM_F_EXCL, attributes, 'make a chain of the packet filter', name);
}

/** At the end of the chain. `comment`: what it is found by, to be removed. */
export function addRule(table: Table, chain: string, expressions: readonly Expression[], comment?: string): Request {
  const attributes: Attribute[] = [
    [NFTA_RULE_TABLE, text(table.name)],
    [NFTA_RULE_CHAIN, text(chain)],
    [NFTA_RULE_EXPRESSIONS, expressions.map((expression) => [NFTA_LIST_ELEM, expression])],
  ];
  if (comment !== undefined) attributes.push([NFTA_RULE_USERDATA, Buffer.concat([Buffer.of(commentType, comment.length + 1), text(comment)])]);
  return message(NFT_MSG_NEWRULE, table, NLM_F_CREATE | NLM_F_APPEND, attributes, 'add a rule to the packet filter', chain);
}

export interface RuleInfo {
  readonly chain: string;
  readonly handle: Uint8Array;
  readonly comment: string | undefined;
}

export async function listRules(socket: NetlinkSocket, table: Table): Promise<RuleInfo[]> {
  const answers = await socket.dump(
    message(NFT_MSG_GETRULE, table, 0, [[NFTA_RULE_TABLE, text(table.name)]], 'list the rules of the packet filter', table.name),
  );
  return answers.map(attributesOf).map((attributes) => ({
    chain: textOf(attributes.get(NFTA_RULE_CHAIN)) ?? '',
    handle: attributes.get(NFTA_RULE_HANDLE) ?? Buffer.alloc(8),
    comment: textOf(attributes.get(NFTA_RULE_USERDATA)?.subarray(2)),
  }));
}

export const deleteRule = (table: Table, { chain, handle }: RuleInfo): Request =>
  message(
    NFT_MSG_DELRULE,
    table,
    0,
    [
      [NFTA_RULE_TABLE, text(table.name)],
      [NFTA_RULE_CHAIN, text(chain)],
      [NFTA_RULE_HANDLE, handle],
    ],
    'remove a rule of the packet filter',
    chain,
  );

export interface Set {
  readonly name: string;
  /** Bytes of a key. */
  readonly keyLength: number;
  /** For nft(8) alone, which shows keys by it: TYPE_* of its datatype.h. 7: IPv4 address, 8: IPv6 address, 13: port. */
  readonly keyType?: number;
  /** Keys are ranges: each begins with one element and ends before another one, `end`. */
  readonly ranges?: boolean;
}

export function addSet(table: Table, { name, keyLength, keyType = 0, ranges = false }: Set): Request {
  const attributes: Attribute[] = [
    [NFTA_SET_TABLE, text(table.name)],
    [NFTA_SET_NAME, text(name)],
    [NFTA_SET_FLAGS, be32(ranges ? NFT_SET_INTERVAL : 0)],
    [NFTA_SET_KEY_TYPE, be32(keyType)],
    [NFTA_SET_KEY_LEN, be32(keyLength)],
    // Of sets that are looked up before they have a name of their own; the kernel wants one all the same.
    [NFTA_SET_ID, be32(1)],
  ];
  return message(NFT_MSG_NEWSET, table, NLM_F_CREATE | NLM_F_EXCL, attributes, 'make a set of the packet filter', name);
}

export interface Element {
  readonly key: Uint8Array;
  readonly end?: boolean;
}

export const addElements = (table: Table, set: string, elements: readonly Element[]): Request =>
  message(NFT_MSG_NEWSETELEM, table, NLM_F_CREATE, elementList(table, set, elements), 'add to a set of the packet filter', set);

export const deleteElements = (table: Table, set: string, elements: readonly Element[]): Request =>
  message(NFT_MSG_DELSETELEM, table, 0, elementList(table, set, elements), 'remove from a set of the packet filter', set);

function elementList(table: Table, set: string, elements: readonly Element[]): Attribute[] {
  return [
    [NFTA_SET_ELEM_LIST_TABLE, text(table.name)],
    [NFTA_SET_ELEM_LIST_SET, text(set)],
    [
      NFTA_SET_ELEM_LIST_ELEMENTS,
      elements.map(({ key, end }) => {
        const flags: Attribute[] = end ? [[NFTA_SET_ELEM_FLAGS, be32(NFT_SET_ELEM_INTERVAL_END)]] : [];
        return [NFTA_LIST_ELEM, [[NFTA_SET_ELEM_KEY, [[NFTA_DATA_VALUE, key]]], ...flags]];
      }),
    ],
  ];
}

/** All of it, or nothing: nf_tables knows transactions only. */
export async function commit(socket: NetlinkSocket, changes: readonly Request[]): Promise<void> {
  if (changes.length > 0) await socket.request(...transaction(changes));
}

export function transaction(changes: readonly Request[]): Request[] {
  const frame = (type: number): Request => ({
    type,
    flags: 0,
    body: nfgenmsg(0, NFNL_SUBSYS_NFTABLES),
    attributes: [],
    step: 'change the packet filter',
  });
  return [frame(NFNL_MSG_BATCH_BEGIN), ...changes, frame(NFNL_MSG_BATCH_END)];
}

/** Of the network, whosever. */
export async function listTables(socket: NetlinkSocket): Promise<Table[]> {
  const answers = await socket.dump({ ...message(NFT_MSG_GETTABLE, { family: 'inet' }, 0, [], 'list the packet filters'), body: nfgenmsg(0) });
  return answers.flatMap((answer) => {
    const family = (Object.keys(families) as Family[]).find((name) => families[name] === answer.payload[0]);
    const name = textOf(attributesOf(answer).get(NFTA_TABLE_NAME));
    return family === undefined || name === undefined ? [] : [{ family, name }];
  });
}

const attributesOf = ({ payload }: Answer): ReturnType<typeof decodeAttributes> => decodeAttributes(payload.subarray(4));
