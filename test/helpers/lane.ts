/**
 * Tests that need what not every machine has. A lane is a machine and a user whose abilities are known beforehand:
 * with `CLOISTER_MUST=1`, one that `CLOISTER_LANE` lists ('root,overlay') and that is missing fails the test.
 */
import { describe, type TestAPI, type TestFunction, test } from 'vitest';
import { type Ability, assertAbility, whyMissing } from './abilities.js';

export { type Ability, whyMissing } from './abilities.js';

export interface Lack {
  /** Each with its reason; empty if all is there. */
  readonly missing: readonly string[];
  /** Those of them that this lane is known to have. */
  readonly broken: readonly string[];
}

function laneAbilities(): ReadonlySet<string> {
  if (process.env['CLOISTER_MUST'] !== '1') return new Set();
  const names = (process.env['CLOISTER_LANE'] ?? '').split(',').filter(Boolean);
  for (const name of names) assertAbility(name);
  return new Set(names);
}

/** What of these is not to be had. */
export function needs(...abilities: readonly Ability[]): Lack {
  const lane = laneAbilities();
  const lacking = abilities.flatMap((ability) => {
    const why = whyMissing(ability);
    return why === undefined ? [] : [{ ability, text: `${ability}: ${why}` }];
  });
  return {
    missing: lacking.map(({ text }) => text),
    broken: lacking.filter(({ ability }) => lane.has(ability)).map(({ text }) => text),
  };
}

function nameLack(name: string, { missing }: Lack): string {
  return `${name} [needs ${missing.join('; ')}]`;
}

function breach({ broken }: Lack): () => never {
  return () => {
    throw new Error(`CLOISTER_LANE says that this machine has it, and it has not: ${broken.join('; ')}`);
  };
}

/** The same as `testNeeding`, for a test API that was made by `test.extend`. */
export function needing<Context>(base: TestAPI<Context>, abilities: readonly Ability[]): (name: string, fn: TestFunction<Context>, timeout?: number) => void {
  const lack = needs(...abilities);
  return (name, fn, timeout) => {
    if (lack.broken.length > 0) test(nameLack(name, lack), breach(lack));
    else if (lack.missing.length > 0) base.skip(nameLack(name, lack), fn);
    else base(name, fn, timeout);
  };
}

/** `testNeeding(['root', 'overlay'])('name', fn)` */
export function testNeeding(abilities: readonly Ability[]) {
  return needing(test, abilities);
}

/** The same for a group of tests. */
export function describeNeeding(abilities: readonly Ability[]): (name: string, body: () => void) => void {
  const lack = needs(...abilities);
  return (name, body) => {
    if (lack.broken.length > 0) test(nameLack(name, lack), breach(lack));
    else if (lack.missing.length > 0) describe.skip(nameLack(name, lack), body);
    else describe(name, body);
  };
}
