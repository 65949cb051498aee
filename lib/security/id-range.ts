import { chmodSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { IsolationError } from '../errors.js';
import { idsHere } from '../host/caller.js';
import type { IdMap } from '../namespace/types.js';
import { native } from '../native.js';
import { countedIds, type Ids, userNamespaceWith } from './id-map.js';

// Ranges of 65,536 ids that no other sandbox of this machine has. Whoever uses one holds a lock on its byte of one file: an
// open file description lock, which the kernel takes away with the last of its holder's descriptors, so also after SIGKILL.
// They lie above the range of systemd-nspawn and below 2^31, where nobody else hands out ids (systemd's UIDS-GIDS).

const first = 0x70000000;
const count = 65536;
const ranges = 4095;
const directory = '/run/cloister';

interface Range {
  readonly index: number;
  readonly userns: number;
}

let lockFile: number | undefined;
const spare: Range[] = [];
/** A lock does not conflict with our own: what is ours is known here only. */
const held = new Set<number>();
const mostSpare = 64;
let available: boolean | undefined;
let next = process.pid % ranges;

/**
 * undefined if such ids do not exist here: inside another user namespace. `ofUid`: the range that this id lies in, if it is one of
 * ours: files that an earlier sandbox has left belong to it. `stays`: files will be left that belong to it, so the next sandbox gets another one.
 */
export async function leaseRange(ofUid?: number, stays = false): Promise<Ids | undefined> {
  available ??= mapped('uid') && mapped('gid');
  if (!available) return undefined;
  const wanted = ofUid === undefined || ofUid < first || ofUid >= first + ranges * count ? undefined : Math.floor((ofUid - first) / count);
  const range = wanted === undefined ? (spare.pop() ?? (await claim())) : await claimAgain(wanted);
  const outside = first + range.index * count;
  const map: IdMap = { uids: [{ inside: 0, outside, count }], gids: [{ inside: 0, outside, count }] };
  return countedIds(map, 'parent', range.userns, (mayLive) => {
    // What may still live has these ids: nobody else gets them while we are there.
    if (mayLive) native().close(range.userns);
    else if (!stays && spare.length < mostSpare) spare.push(range);
    else giveBack(range);
  });
}

function mapped(kind: 'uid' | 'gid'): boolean {
  return idsHere(kind).some(({ inside, count: length }) => inside <= first && inside + length >= first + ranges * count);
}

async function claimAgain(index: number): Promise<Range> {
  lockFile ??= openLockFile();
  const [kept] = spare.splice(
    spare.findIndex((range) => range.index === index),
    spare.some((range) => range.index === index) ? 1 : 0,
  );
  if (kept) return kept;
  if (!held.has(index) && native().lockRange(lockFile, index, 1) === 0) return hold(index);
  throw new IsolationError('ERR_CLOISTER_BUSY', 'the ids that these files belong to are in use by another sandbox', {
    step: 'lease a range of ids',
    path: `${directory}/ids`,
    hint: 'A directory is the writable layer of one root at a time.',
  });
}

async function hold(index: number): Promise<Range> {
  held.add(index);
  const whole = [{ inside: 0, outside: first + index * count, count }];
  try {
    return { index, userns: await userNamespaceWith({ uids: whole, gids: whole }) };
  } catch (error) {
    held.delete(index);
    native().unlockRange(lockFile as number, index, 1);
    throw error;
  }
}

async function claim(): Promise<Range> {
  lockFile ??= openLockFile();
  const taken = grantedElsewhere();
  for (let tries = 0; tries < ranges; tries++) {
    const index = next;
    next = (next + 1) % ranges;
    if (taken.some(([start, end]) => first + index * count < end && first + (index + 1) * count > start)) continue;
    if (held.has(index) || native().lockRange(lockFile, index, 1) < 0) continue;
    return hold(index);
  }
  throw new IsolationError('ERR_CLOISTER_ID_MAP', `all ${ranges} ranges of ids for sandboxes are taken`, {
    step: 'lease a range of ids',
    path: `${directory}/ids`,
    hint: 'Each running sandbox of root has one. End some, or give them an idMap of your own.',
  });
}

function giveBack(range: Range): void {
  held.delete(range.index);
  native().close(range.userns);
  if (lockFile !== undefined) native().unlockRange(lockFile, range.index, 1);
}

function openLockFile(): number {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    // Only root may lock: an open for writing is what a lock needs.
    const fd = openSync(`${directory}/ids`, 'a+', 0o600);
    chmodSync(`${directory}/ids`, 0o600);
    return fd;
  } catch (cause) {
    const { errno, syscall } = cause as NodeJS.ErrnoException;
    throw IsolationError.ofErrno('ERR_CLOISTER_ID_MAP', errno ?? -5, {
      step: 'lease a range of ids',
      syscall,
      path: `${directory}/ids`,
      cause,
      hint: "Ranges are shared out through a file in /run, which must be writable; or choose idMap yourself ('self', or ranges).",
    });
  }
}

/** What an administrator has granted to users of this machine from our part of the number space, if anything. */
function grantedElsewhere(): [start: number, end: number][] {
  const result: [number, number][] = [];
  for (const file of ['/etc/subuid', '/etc/subgid']) {
    let text = '';
    try {
      text = readFileSync(file, 'utf8');
    } catch {
      continue;
    }
    for (const line of text.split('\n')) {
      const [, start, length] = line.split(':').map(Number);
      if (start && length && start + length > first) result.push([start, start + length]);
    }
  }
  return result;
}
