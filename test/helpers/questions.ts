/** What the probe (test/fixtures/probe) can be asked: its usage (run it without arguments) lists the verbs. */
import type { Answers, Outcome, TellingVerb } from './answers.js';

/**
 * Verbs that end the probe, print what is not JSON, or answer at times of their own: `children` (one line, then stays),
 * `winch` (a line for each change), `write` and `write-fd` (a line unless the descriptor is 1), `signal` (one if it
 * survives), `exec` (one if it fails).
 */
const otherVerbs = ['exit', 'signal', 'abort', 'write', 'write-fd', 'cat', 'trap', 'ignore', 'children', 'winch', 'exec', 'seccomp-deny'] as const;
export type OtherVerb = (typeof otherVerbs)[number];

export type Verb = TellingVerb | OtherVerb;
export type Question = Verb | readonly [verb: Verb, ...args: (string | number)[]];
type VerbOf<Q> = Q extends readonly [infer V, ...unknown[]] ? V : Q;
type AnswerTo<Q> = VerbOf<Q> extends infer V extends TellingVerb ? [{ readonly verb: V } & Answers[V]] : [];
type AnswersToTuple<Q extends readonly unknown[]> = Q extends readonly [infer First, ...infer Rest] ? [...AnswerTo<First>, ...AnswersToTuple<Rest>] : [];
/** The answers, in order, of the questions that have one each. */
export type AnswersTo<Q extends readonly unknown[]> = number extends Q['length'] ? ({ readonly verb: Verb } & Partial<Outcome>)[] : AnswersToTuple<Q>;

const others: ReadonlySet<string> = new Set(otherVerbs);

function wordsOf(question: Question): string[] {
  return typeof question === 'string' ? [question] : question.map(String);
}

/** The probe's arguments. */
export function toArguments(questions: readonly Question[]): string[] {
  return questions.flatMap((question, index) => (index === 0 ? wordsOf(question) : ['--', ...wordsOf(question)]));
}

function revive(key: string, value: unknown): unknown {
  return (key === 'soft' || key === 'hard') && value === 'infinity' ? Number.POSITIVE_INFINITY : value;
}

/** One line of the probe's, which the caller knows to be an answer to `verb`. */
export function parseAnswer<V extends Verb>(verb: V, line: string): V extends TellingVerb ? Answers[V] : Outcome {
  const answer: unknown = line.startsWith('{') ? JSON.parse(line, revive) : undefined;
  if (typeof answer !== 'object' || answer === null || !('verb' in answer) || answer.verb !== verb) {
    throw new Error(`the probe was to answer '${verb}', and printed: ${line}`);
  }
  return answer as unknown as V extends TellingVerb ? Answers[V] : Outcome;
}

/** Throws, with all that there was, unless each telling question has its answer. */
export function parseAnswers<const Q extends readonly Question[]>(questions: Q, stdout: string, rest: string): AnswersTo<Q> {
  const verbs = questions.map((question) => wordsOf(question)[0] as Verb).filter((verb) => !others.has(verb));
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
  try {
    const answers = verbs.map((verb, index) => parseAnswer(verb, lines[index] ?? '(nothing)'));
    return answers as unknown as AnswersTo<Q>;
  } catch (cause) {
    throw new Error(`probe ${toArguments(questions).join(' ')}: ${rest}\nstdout: ${stdout}`, { cause });
  }
}
