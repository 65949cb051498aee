import { readFileSync, statSync } from 'node:fs';
import { native } from '../native.js';

/** What this process is and may, as far as a plan depends on it. Read once: Node never changes its own credentials unasked. */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  /** CAP_SYS_ADMIN in the initial user namespace: layers can be idmapped, device nodes made. In another one nobody may, whatever its capabilities. */
  readonly privileged: boolean;
  /** Root of a user namespace of ours whose ids reach beyond one, or the initial one. */
  readonly mayMapRanges: boolean;
  /** Capabilities, a bit each. */
  readonly effective: bigint;
  readonly lastCapability: number;
  readonly ignoredSignals: readonly number[];
}

/** PROC_USER_INIT_INO, linux/nsfs.h. */
const initialUserNamespace = 0xeffffffd;
const capSetgid = 6;
const capSetuid = 7;
const capSysAdmin = 21;

let known: Caller | undefined;

export function caller(): Caller {
  known ??= read();
  return known;
}

function read(): Caller {
  const status = readFileSync('/proc/self/status', 'utf8');
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`);
  const has = (capability: number): boolean => ((effective >> BigInt(capability)) & 1n) === 1n;
  const ignored = native().ignoredSignals();
  const privileged = has(capSysAdmin) && statSync('/proc/self/ns/user').ino === initialUserNamespace;
  return {
    uid: process.geteuid?.() ?? 0,
    gid: process.getegid?.() ?? 0,
    privileged,
    mayMapRanges: privileged && has(capSetuid) && has(capSetgid),
    effective,
    lastCapability: Number(readFileSync('/proc/sys/kernel/cap_last_cap', 'utf8')),
    ignoredSignals: Array.from({ length: 64 }, (_, index) => index + 1).filter((signal) => (ignored >> BigInt(signal - 1)) & 1n),
  };
}

/** Ranges of ids that exist here, as /proc/self/uid_map or gid_map lists them. */
export function idsHere(kind: 'uid' | 'gid'): { inside: number; outside: number; count: number }[] {
  return parseIdMap(readFileSync(`/proc/self/${kind}_map`, 'utf8'));
}

export function parseIdMap(text: string): { inside: number; outside: number; count: number }[] {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [inside = 0, outside = 0, count = 0] = line.trim().split(/\s+/).map(Number);
      return { inside, outside, count };
    });
}
