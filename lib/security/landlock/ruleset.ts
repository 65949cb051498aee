import type { LandlockRules } from '../types.js';
import { cannotRestrict, requireLandlock } from './ability.js';
import { fileRights, ofFiles, portRights, readFile, refer, scopes } from './rights.js';

export interface PathRule {
  readonly path: string;
  readonly access: number;
  /** What is not there is passed over. */
  readonly optional: boolean;
}

/** What the kernel is told: landlock(7). */
export interface Ruleset {
  readonly abi: number;
  readonly handledFiles: number;
  readonly handledPorts: number;
  readonly scoped: number;
  readonly paths: readonly PathRule[];
  readonly ports: readonly { readonly port: number; readonly access: number }[];
  /** What was asked for in general, and this kernel's ABI does not know: docs/landlock.md. */
  readonly missing: readonly string[];
}

export interface RulesetOptions {
  /** Rules of our own making, for paths that not every host has. */
  readonly optional?: ReadonlySet<string>;
  /** What was named and cannot be restricted is told in `missing`, not refused. */
  readonly bestEffort?: boolean;
  /** Why Landlock is needed. */
  readonly refusal?: unknown;
}

/**
 * Rules → ruleset, for this ABI. A part of writing that the kernel cannot restrict (truncating before ABI 3) is in `missing`. Throws
 * ERR_CLOISTER_LANDLOCK for a whole list or scope that it does not know, and where there is no Landlock at all.
 */
export function rulesetFor(rules: LandlockRules, abi: number, { optional = new Set(), bestEffort = false, refusal }: RulesetOptions = {}): Ruleset {
  requireLandlock(abi, refusal);
  const missing: string[] = [];
  const unknown: { name: string; abi: number }[] = [];
  let handledFiles = 0;
  const granted = { read: 0, write: 0, execute: 0 };
  for (const { name, bit, abi: since, list } of fileRights) {
    if (rules[list ?? 'write'] === undefined) continue;
    if (since > abi) {
      missing.push(name);
      continue;
    }
    handledFiles |= bit;
    if (list) granted[list] |= bit;
  }
  // To execute a file the kernel reads it: do_open_execat in fs/exec.c.
  if (granted.execute !== 0) granted.execute |= handledFiles & readFile;

  const paths = new Map<string, number>();
  const grant = (path: string, access: number): void => void paths.set(path, (paths.get(path) ?? 0) | access);
  for (const list of ['read', 'write', 'execute'] as const) for (const path of rules[list] ?? []) grant(path, granted[list]);
  // Every ruleset about files forbids to move and link between directories, unless it is handled and allowed (landlock(7)).
  if (handledFiles !== 0 && rules.write === undefined && abi >= 2) {
    handledFiles |= refer;
    grant('/', refer);
  } else if (handledFiles !== 0 && rules.write === undefined) missing.push('refer');

  let handledPorts = 0;
  const ports = new Map<number, number>();
  for (const list of ['bindTcp', 'connectTcp'] as const) {
    const { bit, abi: since } = portRights[list];
    if (rules[list] === undefined) continue;
    if (since > abi) unknown.push({ name: list, abi: since });
    else {
      handledPorts |= bit;
      for (const port of rules[list]) ports.set(port, (ports.get(port) ?? 0) | bit);
    }
  }
  let scoped = 0;
  for (const scope of rules.scope ?? []) {
    const { bit, abi: since } = scopes[scope];
    if (since > abi) unknown.push({ name: `scope '${scope}'`, abi: since });
    else scoped |= bit;
  }
  if (unknown.length > 0 && !bestEffort) {
    throw cannotRestrict(
      unknown.map(({ name }) => name),
      abi,
      Math.max(...unknown.map(({ abi: since }) => since)),
    );
  }
  return {
    ...{ abi, handledFiles, handledPorts, scoped },
    paths: [...paths].map(([path, access]) => ({ path, access, optional: optional.has(path) })),
    ports: [...ports].map(([port, access]) => ({ port, access })),
    missing: [...missing, ...unknown.map(({ name }) => name)],
  };
}

/** What a rule for something that is no directory may grant. */
export const onFile = (access: number): number => access & ofFiles;
