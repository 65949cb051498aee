/** What this process, and cloister on this machine, hold at one moment: taken before and after, to find leaks. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export { settled } from './settled.js';

/** `key` is what two censuses are compared by; `detail` tells which one it is. */
interface Entry {
  readonly key: string;
  readonly detail: string;
}

/** Reads what another process may take away at any time. */
function orNone<T>(read: () => T, none: T): T {
  try {
    return read();
  } catch {
    return none;
  }
}

function list(directory: string): string[] {
  return orNone(() => readdirSync(directory), []);
}

function readText(path: string): string {
  return orNone(() => readFileSync(path, 'utf8'), '');
}

function descriptors(): Entry[] {
  return list('/proc/self/fd').flatMap((fd) => {
    // The descriptor that the folder was read with is gone by now.
    const target = orNone(() => readlinkSync(`/proc/self/fd/${fd}`), undefined);
    return target === undefined ? [] : [{ key: target.replace(/:\[\d+\]$/, ''), detail: `${fd} → ${target}` }];
  });
}

function threads(): Entry[] {
  return list('/proc/self/task').map((tid) => ({
    key: readText(`/proc/self/task/${tid}/comm`).trim(),
    detail: tid,
  }));
}

interface ProcessRow {
  readonly pid: number;
  readonly comm: string;
  readonly state: string;
  readonly parent: number;
}

function processRows(): ProcessRow[] {
  return list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      const match = /^\d+ \((.*)\) (\S) (\d+)/s.exec(readText(`/proc/${pid}/stat`));
      if (!match) return [];
      const [, comm = '', state = '', parent] = match;
      return [{ pid: Number(pid), comm, state, parent: Number(parent) }];
    });
}

function toEntry({ pid, comm, state }: ProcessRow): Entry {
  return { key: state === 'Z' ? `${comm} (zombie)` : comm, detail: `pid ${pid}` };
}

function descendants(): Entry[] {
  const rows = processRows();
  const family = new Set([process.pid]);
  // Until nothing is added: a child may be listed before its parent.
  for (let size = 0; size !== family.size; ) {
    size = family.size;
    for (const { pid, parent } of rows) if (family.has(parent)) family.add(pid);
  }
  family.delete(process.pid);
  return rows.filter(({ pid }) => family.has(pid)).map(toEntry);
}

function namespacePids(pid: number | 'self'): number {
  const pids = /^NSpid:(.*)$/m.exec(readText(`/proc/${pid}/status`))?.[1];
  return pids?.trim().split(/\s+/).length ?? 0;
}

/** What runs in pid namespaces below ours, whoever is its parent by now: its zombies are that one's to reap. */
function sandboxed(): Entry[] {
  const ours = namespacePids('self');
  return processRows()
    .filter(({ pid, state }) => state !== 'Z' && namespacePids(pid) > ours)
    .map(toEntry);
}

function mounts(): Entry[] {
  return readText('/proc/self/mountinfo')
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const fields = line.split(' ');
      const type = fields[fields.indexOf('-') + 1];
      return { key: `${type} on ${fields[4]}`, detail: `mount ${fields[0]}` };
    });
}

function files(): Entry[] {
  const runtime = process.env['XDG_RUNTIME_DIR'] ?? `/run/user/${process.getuid?.()}`;
  const folders = new Set(['/tmp', '/var/tmp', tmpdir(), '/run/cloister', runtime, join(runtime, 'cloister')]);
  return [...folders].flatMap((folder) => list(folder).map((name) => ({ key: join(folder, name), detail: '' })));
}

function cgroupsBelow(directory: string): Entry[] {
  const entries = orNone(() => readdirSync(directory, { withFileTypes: true }), []);
  return entries
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(directory, entry.name))
    .flatMap((path) => [{ key: path, detail: '' }, ...cgroupsBelow(path)]);
}

/** What keeps the event loop alive. */
function handles(): Entry[] {
  return process.getActiveResourcesInfo().map((key) => ({ key, detail: '' }));
}

const sections = {
  descriptors,
  threads,
  descendants,
  sandboxed,
  mounts,
  files,
  cgroups: () => cgroupsBelow('/sys/fs/cgroup'),
  handles,
};
export type Section = keyof typeof sections;
export type Census = Readonly<Partial<Record<Section, readonly Entry[]>>>;

/**
 * `sandboxed`, `mounts`, `files` and `cgroups` are those of the whole machine: what runs at the same time is counted too,
 * so a test names the sections that are its own, or runs alone.
 */
export function census(only: readonly Section[] = Object.keys(sections) as Section[]): Census {
  return Object.fromEntries(only.map((section) => [section, sections[section]()]));
}

function groupByKey(entries: readonly Entry[]): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const { key, detail } of entries) groups.set(key, [...(groups.get(key) ?? []), detail]);
  return groups;
}

interface Difference {
  readonly change: number;
  readonly text: string;
}

function compare(before: readonly Entry[], after: readonly Entry[]): Difference[] {
  const [old, now] = [groupByKey(before), groupByKey(after)];
  return [...new Set([...old.keys(), ...now.keys()])].flatMap((key) => {
    const [had, has] = [old.get(key) ?? [], now.get(key) ?? []];
    const change = has.length - had.length;
    if (change === 0) return [];
    const fresh = has.filter((detail) => detail && !had.includes(detail));
    const which = change > 0 && fresh.length > 0 ? ` (${fresh.join(', ')})` : '';
    return [{ change, text: `${Math.abs(change)} ${change > 0 ? 'more' : 'fewer'}: ${key}${which}` }];
  });
}

function differences(before: Census, after: Census): Difference[] {
  return (Object.keys(before) as Section[]).flatMap((section) => {
    const [old, now] = [before[section], after[section]];
    const found = old && now ? compare(old, now) : [];
    return found.map(({ change, text }) => ({ change, text: `${section}: ${text}` }));
  });
}

/** One line for each difference; empty if the two are equal in the sections that both have. */
export function difference(before: Census, after: Census): string[] {
  return differences(before, after).map(({ text }) => text);
}

/** Only what has become more: what an earlier test left may go meanwhile. */
export function leaks(before: Census, after: Census): string[] {
  return differences(before, after).flatMap(({ change, text }) => (change > 0 ? [text] : []));
}
