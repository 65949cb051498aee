/** Who attacks from within; who the caller is, is who runs the tests. */
import type { SpawnOptions } from 'cloister';
import { ask, type Question } from '../helpers/probe.js';

const isRoot = process.getuid?.() === 0;

export interface Inside {
  readonly name: string;
  readonly options: SpawnOptions;
}

export const insides: readonly Inside[] = [
  { name: 'root inside', options: {} },
  { name: 'a user inside', options: { user: { uid: 1000, gid: 1000 } } },
  { name: 'with init', options: { init: true } },
  ...(isRoot ? [{ name: 'host root, without a user namespace', options: { namespaces: { user: 'host' } } } as const] : []),
];

export interface Attack {
  readonly name: string;
  readonly question: Question;
  /** What it must be answered. */
  readonly refused: readonly string[];
  /** The defence taken away, where that can be done without harm; then it must not be answered that. */
  readonly without?: SpawnOptions;
  /** What it is answered then: null, it succeeds. */
  readonly freed?: string | null;
}

/** Of the lot, in one sandbox. */
export async function attempt(attacks: readonly Attack[], options: SpawnOptions): Promise<ReadonlyMap<string, string | null>> {
  const answers = await ask(
    attacks.map(({ question }) => question),
    options,
  );
  return new Map(attacks.map(({ name }, index) => [name, answers[index]?.errno ?? null]));
}

/** Those that succeeded, or failed for another reason than the defence. */
export function successes(attacks: readonly Attack[], answers: ReadonlyMap<string, string | null>): string[] {
  return attacks.flatMap(({ name, refused }) => (refused.includes(answers.get(name) ?? 'nothing') ? [] : [`${name}: ${answers.get(name)}`]));
}
