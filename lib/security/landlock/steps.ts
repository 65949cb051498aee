import type { PlanBuilder } from '../../plan/builder.js';
import * as k from '../../plan/constants.js';
import { cwd, type Slot, type Step } from '../../plan/steps.js';
import { openHow } from '../../plan/structs.js';
import { ruleNetPort } from './rights.js';
import { onFile, type PathRule, type Ruleset } from './ruleset.js';

const words = (...values: readonly number[]): Uint8Array => new Uint8Array(new BigUint64Array(values.map(BigInt)).buffer);

/**
 * Puts the rules together, with paths as they are inside, by whoever may search them; the returned function puts them in force. That
 * needs no_new_privs, or CAP_SYS_ADMIN: landlock_restrict_self(2). After it nothing can be mounted any more.
 */
export function addRuleset(plan: PlanBuilder, { handledFiles, handledPorts, scoped, paths, ports }: Ruleset): () => void {
  plan.label('make a Landlock ruleset');
  const ruleset = plan.open('Landlock ruleset', 'landlock_create_ruleset', [words(handledFiles, handledPorts, scoped), 0]);
  const target = plan.slot('path of a rule');
  for (const rule of paths) addPath(plan, ruleset, target, rule);
  for (const { port, access } of ports) {
    plan.label('allow by Landlock', `port ${port}`).add('landlock_add_rule', [ruleset, ruleNetPort, words(access, port), 0]);
  }
  return () => {
    plan.label('restrict by Landlock').add('landlock_restrict_self', [ruleset, 0]);
    plan.add('close', [ruleset]);
  };
}

/** A rule for a file must not grant what only directories have (EINVAL), and which of them it is only the inside knows. */
function addPath(plan: PlanBuilder, ruleset: Slot, target: Slot, { path, access, optional }: PathRule): void {
  plan.label('allow by Landlock', path);
  const look = (flags: number, tolerate: number[]): Step =>
    plan.add('openat2', [cwd, path, openHow(k.O_PATH | k.O_CLOEXEC | flags, k.RESOLVE_NO_MAGICLINKS)], { out: target, tolerate });
  const allow = (rights: number): Step => {
    plan.add('landlock_add_path', [ruleset, target, rights]);
    return plan.add('close', [target]);
  };
  // What may not be reached need not be allowed.
  const absent = optional ? [k.ENOENT, k.EACCES] : [];
  let done: Step | undefined;
  plan.unless(look(k.O_DIRECTORY, [k.ENOTDIR, ...absent]), 'tolerated', () => {
    done = allow(access);
  });
  if (onFile(access) === 0) return;
  plan.unless(done as Step, 'done', () => {
    plan.unless(look(0, absent), 'tolerated', () => allow(onFile(access)));
  });
}
