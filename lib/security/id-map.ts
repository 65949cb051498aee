import { existsSync, readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { optionError } from '../errors.js';
import type { Caller } from '../host/caller.js';
import type { UserNamespace } from '../namespace/kinds.js';
import type { IdMap, IdRange } from '../namespace/types.js';
import { native } from '../native.js';
import { type IdMapTexts, PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd } from '../plan/steps.js';
import { awaitIds } from './await-ids.js';
import { leaseRange } from './id-range.js';

/** The id map of one user namespace, and how it comes to be written. user_namespaces(7) */
export interface Ids {
  readonly map: IdMap;
  /** Who writes it: we, from outside; the process itself; newuidmap(1) and newgidmap(1). */
  readonly writer: 'parent' | 'child' | 'helpers';
  /** A user namespace with this map, for idmapped mounts; only where the caller can make such mounts. Borrowed. */
  readonly userns: number | undefined;
  /** One more user of it: a range goes back when the last has released it. */
  retain(): Ids;
  /** `mayLive`: a process with these ids may outlive the sandbox. */
  release(mayLive?: boolean): void;
}

/** What a process without a user namespace of its own has: every id as it is. */
export const hostIds: Ids = fixedIds(
  { uids: [{ inside: 0, outside: 0, count: 0xffffffff }], gids: [{ inside: 0, outside: 0, count: 0xffffffff }] },
  'parent',
  undefined,
);

const joinedMaps = new WeakMap<UserNamespace, Promise<IdMap>>();

/** Of a user namespace that somebody has made: what is mounted for it shows owners by its map, which never changes once it is written. */
export async function idsOfNamespace(namespace: UserNamespace): Promise<Ids> {
  let map = joinedMaps.get(namespace);
  if (!map) {
    map = namespace.idMap();
    joinedMaps.set(namespace, map);
    map.catch(() => joinedMaps.delete(namespace));
  }
  return fixedIds(await map, 'parent', namespace.fd);
}

/** Ids that are given back when the last of their users has released them. */
export function countedIds(map: IdMap, writer: Ids['writer'], userns: number | undefined, giveBack: (mayLive: boolean) => void): Ids {
  let users = 0;
  let spent = false;
  const retain = (): Ids => {
    users++;
    let released = false;
    const release = (mayLive = false): void => {
      if (released) return;
      released = true;
      spent ||= mayLive;
      if (--users === 0) giveBack(spent);
    };
    return { map, writer, userns, retain, release };
  };
  return retain();
}

/** Ids that need not be given back. */
function fixedIds(map: IdMap, writer: Ids['writer'], userns: number | undefined): Ids {
  const ids: Ids = { map, writer, userns, retain: () => ids, release: () => {} };
  return ids;
}

export function checkIdMap(value: unknown, option: string): 'auto' | 'self' | IdMap {
  if (value === 'auto' || value === 'self') return value;
  if (value === null || typeof value !== 'object') throw optionError(option, "'auto', 'self', or { uids, gids } of ranges", value);
  return checkRangesOf(value, option);
}

/** Ranges alone: where 'auto' means nothing. */
export function checkRangesOf(value: unknown, option: string): IdMap {
  if (value === null || typeof value !== 'object') throw optionError(option, '{ uids, gids } of ranges', value);
  const { uids, gids } = value as Partial<IdMap>;
  return { uids: checkRanges(uids, `${option}.uids`), gids: checkRanges(gids, `${option}.gids`) };
}

function checkRanges(value: unknown, option: string): IdRange[] {
  const takes = 'ranges { inside, outside, count } of whole numbers that do not overlap';
  if (!Array.isArray(value) || value.length === 0 || value.length > 340) throw optionError(option, takes, value);
  const ranges = value as IdRange[];
  for (const range of ranges) {
    for (const number of [range?.inside, range?.outside, range?.count]) {
      if (!Number.isInteger(number) || number < 0 || number > 0xffffffff) throw optionError(option, takes, value);
    }
    if (range.count === 0 || range.inside + range.count > 0xffffffff || range.outside + range.count > 0xffffffff) throw optionError(option, takes, value);
  }
  for (const side of ['inside', 'outside'] as const) {
    const sorted = [...ranges].sort((a, b) => a[side] - b[side]);
    for (const [index, range] of sorted.entries()) {
      const next = sorted[index + 1];
      if (next && range[side] + range.count > next[side]) throw optionError(option, takes, value);
    }
  }
  return ranges.map(({ inside, outside, count }) => ({ inside, outside, count }));
}

export const sameMap = (a: IdMap, b: IdMap): boolean => mapText(a.uids) === mapText(b.uids) && mapText(a.gids) === mapText(b.gids);

/** The lines that /proc/PID/uid_map takes. */
export function mapText(ranges: readonly IdRange[]): string {
  return ranges.map(({ inside, outside, count }) => `${inside} ${outside} ${count}\n`).join('');
}

/** Inside → outside; undefined where it is not mapped. */
export function outside(ranges: readonly IdRange[], id: number): number | undefined {
  const range = ranges.find(({ inside, count }) => id >= inside && id < inside + count);
  return range && range.outside + (id - range.inside);
}

/** Whose files are that are made for a sandbox: its root's, or where it has none, those of the first id that it has. */
export function rootOutside({ uids, gids }: IdMap): { uid: number; gid: number } {
  const first = (ranges: readonly IdRange[]): number => outside(ranges, 0) ?? ranges[0]?.outside ?? 0;
  return { uid: first(uids), gid: first(gids) };
}

const one = (inside: number, outsideId: number): IdRange => ({ inside, outside: outsideId, count: 1 });

/** `insideUser` is who an ordinary user becomes when nothing but itself can be mapped. */
export async function idsFor(setting: 'auto' | 'self' | IdMap, caller: Caller, insideUser: { uid: number; gid: number }): Promise<Ids> {
  if (setting === 'self') return ownIds(caller, insideUser);
  if (setting !== 'auto') return givenIds(setting, caller);
  if (caller.mayMapRanges) return (await leaseRange()) ?? ownIds(caller, insideUser);
  const granted = grantedRanges(caller);
  return granted ? fixedIds(granted, 'helpers', undefined) : ownIds(caller, insideUser);
}

function ownIds(caller: Caller, { uid, gid }: { uid: number; gid: number }): Ids {
  const map = { uids: [one(uid, caller.uid)], gids: [one(gid, caller.gid)] };
  // Whoever may, writes it from outside: only so does the process keep setgroups.
  return fixedIds(map, caller.mayMapRanges ? 'parent' : 'child', undefined);
}

/** The namespaces of maps that were given, for as long as somebody uses them. */
const kept = new Map<string, Promise<Ids>>();

async function givenIds(map: IdMap, caller: Caller): Promise<Ids> {
  if (!caller.mayMapRanges) {
    const itself =
      map.uids.length === 1 &&
      map.gids.length === 1 &&
      map.uids[0]?.count === 1 &&
      map.gids[0]?.count === 1 &&
      map.uids[0].outside === caller.uid &&
      map.gids[0].outside === caller.gid;
    return fixedIds(map, itself ? 'child' : 'helpers', undefined);
  }
  const key = mapText(map.uids) + mapText(map.gids);
  const known = kept.get(key);
  if (known) return (await known).retain();
  const made = userNamespaceWith(map).then((userns) =>
    countedIds(map, 'parent', userns, () => {
      kept.delete(key);
      native().close(userns);
    }),
  );
  kept.set(key, made);
  made.catch(() => kept.delete(key));
  return made;
}

/** A descriptor of a user namespace without processes that has this map: mount_setattr(2) takes its ids from one. */
export async function userNamespaceWith(map: IdMap): Promise<number> {
  const plan = new PlanBuilder();
  plan.joinFlags = k.CLONE_NEWUSER;
  plan.idMap = mapTexts(map);
  plan.in('join');
  awaitIds(plan);
  plan.label('make a user namespace');
  const userns = plan.open('user namespace', 'openat', [cwd, '/proc/self/ns/user', k.O_RDONLY | k.O_CLOEXEC, 0]);
  plan.keep(userns);
  return (await runPlan(plan))(userns);
}

/** What the parent writes, or has written, while the child waits. */
export function idTexts(ids: Ids): IdMapTexts {
  return ids.writer === 'helpers' ? helperWords(ids.map) : mapTexts(ids.map);
}

function mapTexts(map: IdMap): IdMapTexts {
  return { uid: mapText(map.uids), gid: mapText(map.gids) };
}

const newuidmap = '/usr/bin/newuidmap';
const newgidmap = '/usr/bin/newgidmap';

function helperWords(map: IdMap): IdMapTexts {
  const words = (ranges: readonly IdRange[]): string[] => ranges.flatMap(({ inside, outside: out, count }) => [inside, out, count].map(String));
  return { uid: [newuidmap, ...words(map.uids)], gid: [newgidmap, ...words(map.gids)] };
}

/**
 * What subuid(5) and subgid(5) grant this user: itself as root inside, as with rootless podman, so that its own files stay its
 * own; the granted ids above.
 */
function grantedRanges(caller: Caller): IdMap | undefined {
  if (!existsSync(newuidmap) || !existsSync(newgidmap)) return undefined;
  const uids = granted('/etc/subuid', caller.uid);
  const gids = granted('/etc/subgid', caller.uid);
  if (!uids || !gids) return undefined;
  return { uids: [one(0, caller.uid), uids], gids: [one(0, caller.gid), gids] };
}

function granted(file: string, uid: number): IdRange | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
  const names = [String(uid), nameOf(uid)];
  for (const line of text.split('\n')) {
    const [name = '', start, count] = line.split(':');
    if (names.includes(name) && Number(count) > 0) return { inside: 1, outside: Number(start), count: Math.min(Number(count), 65535) };
  }
  return undefined;
}

function nameOf(uid: number): string {
  try {
    const info = userInfo();
    return info.uid === uid ? info.username : '';
  } catch {
    return '';
  }
}
