import { optionError } from '../../errors.js';
import { action, type Policy, strictness } from './policy.js';

const needed = new Set(['execve', 'exit_group']);
const always = [...needed, 'execveat', 'faccessat', 'openat', 'read', 'close'];
const withPrivilegesToLose = ['capset', 'prctl', 'rt_sigprocmask'];

/**
 * The filter is in force while the program is executed, and while a failure of that is told: by a process that still shares our
 * memory, which must neither be dumped (a killed process may be, core(5)) nor be unable to end.
 */
export function checkLaunch(policy: Policy, option: string, gains: boolean): void {
  for (const name of [...always, ...(gains ? withPrivilegesToLose : [])]) {
    const answers = [...(policy.calls.get(name) ?? []), { when: [], action: policy.otherwise }];
    const until = answers.findIndex(({ when }) => when.length === 0);
    for (const { action: answer } of answers.slice(0, until + 1)) {
      if (needed.has(name) && strictness(answer) < strictness(action.log))
        throw optionError(option, `a profile that allows ${name}: without it no program can be started`, name);
      if (strictness(answer) <= strictness(action.trap))
        throw optionError(option, `a profile that refuses ${name} by an errno at most: starting a program makes that call`, name);
    }
  }
}
